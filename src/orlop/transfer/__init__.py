"""Moves images between a registry and the store: pull, push."""
