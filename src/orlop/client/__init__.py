"""Typed HTTP client of the engine; the CLI uses only this."""
