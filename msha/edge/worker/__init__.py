"""A worker's process: the traffic, on the agent's orders."""
