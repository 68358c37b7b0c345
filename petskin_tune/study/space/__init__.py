"""What is searched: parameters, Ultralytics' arguments, start points."""
