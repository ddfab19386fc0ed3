"""A watch of a Kubernetes resource: what an event takes from the socket to the handler, and what objects take."""
