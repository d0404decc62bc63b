"""What zelect keeps in Redis: the registry of the controller, and the witness."""
