"""What works: the host worker, which consumes its queue, and the control worker, which consumes reports."""
