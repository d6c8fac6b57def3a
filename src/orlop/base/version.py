"""The version of this release, where no package metadata needs to be read to know it."""

__all__ = ["VERSION"]

VERSION = "0.1.0"  # a house test compares it with pyproject.toml
