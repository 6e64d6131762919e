"""Workers: what consumes queues. `host` runs on each Docker host, `control` is the trusted side."""
