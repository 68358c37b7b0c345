"""Runs of elsewhere as trials of a study: read, held against the study, stored."""
