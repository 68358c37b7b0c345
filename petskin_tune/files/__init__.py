"""Files that are whole or absent, also on disks that lie."""
