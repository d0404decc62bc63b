"""Commands that run where leadership is: `zelect run`, hooks, `zelect file` (docs/running-a-job.md)."""
