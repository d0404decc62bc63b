"""What `zelect init` writes for a set of hosts: one configuration for all of them, keys, and units for systemd."""
