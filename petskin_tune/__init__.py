"""A resumable hyperparameter-search service for YOLOv8 segmentation."""

__version__ = "0.1.0"
