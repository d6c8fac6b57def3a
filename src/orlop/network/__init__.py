"""Networks of containers: addresses, ports and rules as values, and the host's side of a bridge."""
