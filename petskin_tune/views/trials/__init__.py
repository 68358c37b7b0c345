"""The table of all trials, and the page of one."""
