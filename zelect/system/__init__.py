"""Small things over the operating system: clock, poller, log, files that only their owner may touch."""
