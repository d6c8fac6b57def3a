-- The registry server: what its repositories hold. Owner: orlop.registryd. Bytes are rows of `blob`.

CREATE TABLE registry_repository (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    created_ns  INTEGER NOT NULL
);

-- A blob is visible in a repository through its link only; the bytes are shared by all.
CREATE TABLE registry_link (
    repository  INTEGER NOT NULL REFERENCES registry_repository (id) ON DELETE CASCADE,
    digest      TEXT NOT NULL,
    linked_ns   INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;

CREATE INDEX registry_link_by_digest ON registry_link (digest);

CREATE TABLE registry_manifest (
    repository     INTEGER NOT NULL REFERENCES registry_repository (id) ON DELETE CASCADE,
    digest         TEXT NOT NULL,
    media_type     TEXT NOT NULL,
    size_bytes     INTEGER NOT NULL,
    artifact_type  TEXT NOT NULL DEFAULT '',   -- as the referrers API shows it
    annotations    TEXT NOT NULL DEFAULT '{}', -- JSON, as the referrers API shows it
    subject        TEXT,                       -- digest; it need not be stored
    pushed_ns      INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;

CREATE INDEX registry_manifest_by_subject ON registry_manifest (repository, subject);

-- What a manifest names: blobs (kind 0) and manifests (kind 1) of its own repository.
CREATE TABLE registry_reference (
    repository  INTEGER NOT NULL,
    manifest    TEXT NOT NULL,
    kind        INTEGER NOT NULL,
    digest      TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    PRIMARY KEY (repository, manifest, kind, digest),
    FOREIGN KEY (repository, manifest) REFERENCES registry_manifest (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE INDEX registry_reference_by_digest ON registry_reference (repository, digest);

CREATE TABLE registry_tag (
    repository  INTEGER NOT NULL,
    name        TEXT NOT NULL,
    digest      TEXT NOT NULL,
    updated_ns  INTEGER NOT NULL,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, digest) REFERENCES registry_manifest (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE INDEX registry_tag_by_digest ON registry_tag (repository, digest);
