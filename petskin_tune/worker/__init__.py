"""The loop of a worker: find a trial, run it, stop in time."""
