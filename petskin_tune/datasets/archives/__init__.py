"""Archives: their names, writing them, unpacking them."""
