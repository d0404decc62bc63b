"""Bytes to and from peers: the ROUTER, one DEALER for each peer, and proof of death."""
