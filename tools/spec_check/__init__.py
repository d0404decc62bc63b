"""The specification in spec/, checked: its models by TLC, and recorded histories against it."""
