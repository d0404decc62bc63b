"""What a node shows over HTTP: probes, status, metrics."""
