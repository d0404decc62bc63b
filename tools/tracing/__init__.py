"""What a vote runs through: see tools/trace_path.py."""
