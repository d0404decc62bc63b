"""The shell: everything that touches the world, around the pure machine."""
