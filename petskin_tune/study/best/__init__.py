"""Which trial is the best, and whether its gain is more than noise."""
