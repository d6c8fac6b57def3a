"""Codecs without I/O: tar, EROFS, HTTP/1.1, Docker streams, Go JSON."""
