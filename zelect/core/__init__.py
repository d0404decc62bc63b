"""The pure core: the rules of the election as values and arithmetic. Nothing here does I/O."""
