"""Pure values of the OCI specs: digest, descriptor, manifest, index, config, reference, platform."""
