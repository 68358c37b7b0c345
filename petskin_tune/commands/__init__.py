"""What a person types: each command beside its options."""
