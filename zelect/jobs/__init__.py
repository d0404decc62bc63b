"""Commands that run where the office is: `zelect run`, hooks, `zelect file` (docs/running-a-job.md)."""
