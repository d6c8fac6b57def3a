"""Where a registry keeps its repositories."""
