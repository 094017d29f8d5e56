"""What a port is made of before a head is read: the sharing of it, TLS, certificates, balancers."""
