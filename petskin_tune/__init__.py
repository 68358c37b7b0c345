"""A resumable hyperparameter-search service for YOLOv8 segmentation."""

import logging

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a command without a log says nothing by it
