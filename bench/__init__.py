"""How the edge compares with nginx, HAProxy and a naive relay: ``python -m bench``; see README.md."""
