"""The parts of tools/bench.py: a real cluster, real faults, and what is made of the times."""
