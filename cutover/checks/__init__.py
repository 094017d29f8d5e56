"""What is looked at before a cutover may start, and once more before ids are frozen."""
