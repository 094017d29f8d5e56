"""The agent's process: what a node is, knows, reports and does, whoever carries its traffic."""
