"""Orlop: a complete container platform behind the Docker Engine API."""
