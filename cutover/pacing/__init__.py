"""How a cutover is divided and paced: what was asked for, what is planned of it, what holds it back."""
