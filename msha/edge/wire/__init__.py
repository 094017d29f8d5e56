"""What stands on the wire, as values: heads, frames, headers of balancers. No socket is touched here."""
