"""What HTTP asks for around the engine, one concern a file; `serving.app` puts them together."""
