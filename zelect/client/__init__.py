"""Asking nodes and Redis who is controller, from outside."""
