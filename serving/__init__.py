"""The service: events in, session state folded, scores out in the same request."""
