"""The weights that Ultralytics publishes, by name."""

# The segmentation models that Ultralytics trained itself (GITHUB_ASSETS_NAMES in ultralytics.utils.downloads).
# Of yolo12 there is an architecture, and no weights that segment.
PUBLISHED = (
    *(f"yolo{family}{scale}-seg.pt" for family in ("v8", "11", "26") for scale in "nsmlx"),
    "yolov9c-seg.pt",
    "yolov9e-seg.pt",
)
