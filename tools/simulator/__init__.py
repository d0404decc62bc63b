"""The simulator: the machine that ships, under virtual time and faults that follow from a seed."""
