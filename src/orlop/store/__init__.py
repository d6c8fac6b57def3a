"""What is on disk: database, leases, blobs, layers (tar framed by EROFS), snapshots, collection."""
