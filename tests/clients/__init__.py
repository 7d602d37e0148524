"""The clients of shops' servers, in real apps with a running service."""
