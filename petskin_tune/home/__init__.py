"""A user's files: on this machine's disk, or as a replica on a network disk."""
