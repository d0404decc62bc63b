"""Writes that carry the term, and are refused when a newer term has written."""
