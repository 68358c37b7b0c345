"""One trial on this machine: its inputs, its process, what it says and what becomes of it."""
