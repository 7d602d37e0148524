"""What real clients of trackers send, and what we make of it."""
