"""Hostile heads and frames, and what other implementations make of them (decision 0061)."""
