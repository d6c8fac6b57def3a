"""Errors, ids, clock, log, failpoints: what every other package may use."""
