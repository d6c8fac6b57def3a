-- Images: configs with names. Owner: orlop.images. Documents themselves are blobs.

CREATE TABLE image (
    id          TEXT PRIMARY KEY,       -- digest of the config blob
    created_ns  INTEGER NOT NULL,       -- from the config; 0 when it says nothing
    stored_ns   INTEGER NOT NULL,
    tagged_ns   INTEGER NOT NULL DEFAULT 0,
    parent      TEXT NOT NULL DEFAULT '' -- image it was committed or built from, when known
) WITHOUT ROWID;

CREATE TABLE image_layer (
    image       TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL,       -- 0 is the bottom
    diff_id     TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,       -- of the files in the layer
    PRIMARY KEY (image, position)
) WITHOUT ROWID;

CREATE INDEX image_layer_by_diff_id ON image_layer (diff_id);

-- Manifests and indexes that described the image, kept byte for byte; the latest is shown.
CREATE TABLE image_document (
    image       TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
    digest      TEXT NOT NULL,
    media_type  TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    stored_ns   INTEGER NOT NULL,
    PRIMARY KEY (image, digest)
) WITHOUT ROWID;

CREATE TABLE image_name (
    name        TEXT PRIMARY KEY,       -- normalised: docker.io/library/alpine:latest or ...@sha256:...
    repository  TEXT NOT NULL,
    image       TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
    is_digest   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX image_name_by_image ON image_name (image);

-- Where a layer's compressed form can be had: what a push mounts or fetches again.
CREATE TABLE layer_source (
    diff_id     TEXT NOT NULL,
    digest      TEXT NOT NULL,          -- of the compressed blob
    media_type  TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    repository  TEXT NOT NULL,          -- normalised, or empty: made here
    seen_ns     INTEGER NOT NULL,
    PRIMARY KEY (diff_id, digest, repository)
) WITHOUT ROWID;
