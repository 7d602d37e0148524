"""Flags and experiments, live: what a session gets to see, decided with its scores and features."""
