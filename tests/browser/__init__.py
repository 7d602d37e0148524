"""Real clients in a real browser and in Node, against the running service."""
