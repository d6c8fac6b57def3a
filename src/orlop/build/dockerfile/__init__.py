"""The Dockerfile frontend: bytes to logical lines to instructions to stages to a graph. Pure."""
