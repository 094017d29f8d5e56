"""From a connection's first byte to its tunnel or its answer."""
