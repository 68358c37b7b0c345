"""Who owns a running trial: births, take-overs, and every write under a token."""
