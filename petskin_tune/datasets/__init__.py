"""Data sets on disk: made, imported, resolved, sampled, checked and recognised again. Imports no torch and no SQL."""
