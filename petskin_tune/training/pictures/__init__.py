"""Pictures of what a trial's best weights do: predictions beside labels, confusions, curves; without matplotlib."""
