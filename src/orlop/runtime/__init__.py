"""Running containers: spec, supervisor, init, execs, logs."""
