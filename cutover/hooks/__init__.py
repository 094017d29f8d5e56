"""Hooks: other people's systems that a cutover calls on its way, and waits for."""
