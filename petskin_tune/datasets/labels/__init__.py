"""Label files of a data set: the rules of their rows, and the outlines measured."""
