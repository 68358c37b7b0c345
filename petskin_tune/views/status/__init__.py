"""Where a study stands: collected once, and shown as text."""
