"""Who may do what in a registry."""
