"""The registry server: OCI distribution-spec 1.1 over the store, with access control and caching."""
