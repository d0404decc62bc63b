"""Commands around a node: `zelect run` and its watchdog, `zelect file` (docs/running-a-job.md)."""
