"""A node's durable state, and the lock that proves that its process runs."""
