-- Several platforms under one name, what lies beside an image, and when it was used. Owner: orlop.images.

-- Further images that a name stands for, beside image_name.image: other entries of the same index.
CREATE TABLE image_variant (
    name   TEXT NOT NULL REFERENCES image_name (name) ON DELETE CASCADE,
    image  TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
    PRIMARY KEY (name, image)
) WITHOUT ROWID;

CREATE INDEX image_variant_by_image ON image_variant (image);

-- Blobs kept with an image that are not the image: attestation manifests, their configs and statements.
CREATE TABLE image_attachment (
    image       TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
    digest      TEXT NOT NULL,
    media_type  TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    PRIMARY KEY (image, digest)
) WITHOUT ROWID;

-- What collection by age and size goes by. An image without a row was never used.
CREATE TABLE image_use (
    image      TEXT PRIMARY KEY REFERENCES image (id) ON DELETE CASCADE,
    used_ns    INTEGER NOT NULL DEFAULT 0,
    is_pinned  INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
