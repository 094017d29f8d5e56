"""The fault campaign: real processes, faults at seeded moments, and a judge that reads logs alone."""
