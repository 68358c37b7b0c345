"""Pictures of a data set: read, decoded, drawn."""
