"""Networks of containers: on one host, and over many."""
