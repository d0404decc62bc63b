"""What a node may never forget, and the lock that proves that it lives."""
