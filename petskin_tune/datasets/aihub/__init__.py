"""AI-Hub 561 (pet skin disease) to a YOLO segmentation data set.

The path of the data, one module a step: ``members`` (the files, in folders and zips) → ``catalogue`` (each label file
read once, joined to its image; ``records`` knows the schema) → ``selection`` (what was asked for) → ``conversion``
(outlines and pictures written to a pool; ``outlines`` knows geometry) → ``splitting`` → ``writing`` (files to their
places, records, report). ``importing`` is the whole journey, and what makes it resumable.
"""
