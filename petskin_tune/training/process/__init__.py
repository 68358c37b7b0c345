"""The trial's own process: how it starts, what it may see, how it talks."""
