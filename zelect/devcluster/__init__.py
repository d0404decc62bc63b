"""A cluster on one host, for development and trial: its Redis, its nodes and their supervisor."""
