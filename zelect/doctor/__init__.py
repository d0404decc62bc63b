"""What `zelect doctor` measures, and what it makes of that."""
