"""The process around the machine: the poller loop, its start, its signals, its answers."""
