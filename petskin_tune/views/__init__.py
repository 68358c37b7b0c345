"""What a person sees of a study. Views read and never write."""
