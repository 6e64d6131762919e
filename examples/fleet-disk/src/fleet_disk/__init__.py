"""Two tasks for Fleet: `disk.free` and `disk.usage`."""
