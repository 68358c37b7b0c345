"""What ``petskin-tune doctor`` looks at before hours are spent, and what it concludes."""
