"""What a run's curves may suffer from, one module each."""
