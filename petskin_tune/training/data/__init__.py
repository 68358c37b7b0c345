"""What is trained on, in which order."""
