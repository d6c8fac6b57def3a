"""Client of OCI distribution registries: transport, auth, resolve, blobs."""
