"""The study file: read with its lines, checked key by key, written out again, and explained."""
