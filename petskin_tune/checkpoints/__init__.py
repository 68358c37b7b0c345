"""Snapshots and weights in a store that outlives this machine: a folder, a mounted Drive, ``s3://`` or ``gs://``."""
