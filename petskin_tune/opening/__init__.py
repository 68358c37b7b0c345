"""From what a person typed to an open study: places, lookup, and where it is new, its beginning."""
