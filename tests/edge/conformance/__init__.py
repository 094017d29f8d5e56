"""Conversations in the manner of the Autobahn test suite, direct and through an edge (decision 0061)."""
