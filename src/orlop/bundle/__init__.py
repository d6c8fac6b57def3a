"""OCI runtime bundles: the documents of the runtime-spec, and the command that runs them."""
