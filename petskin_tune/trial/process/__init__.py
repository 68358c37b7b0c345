"""The process that trains a trial: its environment, its start and its end."""
