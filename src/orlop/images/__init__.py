"""Images: names, configs, history, archives."""
