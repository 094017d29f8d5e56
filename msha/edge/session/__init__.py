"""Open sessions: their bytes, their ends, and what is said into them."""
