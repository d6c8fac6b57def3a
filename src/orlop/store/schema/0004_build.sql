-- Build cache. Owner: orlop.build. Rows are written after the layers they name are durable.

-- A cache key is a node; a link says: doing `digest` (operation and output) with `input_key` (narrowed by
-- `selector`) as input number `input` leads to `target`. All inputs of an operation must lead to one target.
CREATE TABLE build_link (
    input_key   TEXT NOT NULL,
    input       INTEGER NOT NULL,
    digest      TEXT NOT NULL,
    selector    TEXT NOT NULL,
    target      TEXT NOT NULL,
    PRIMARY KEY (input_key, input, digest, selector, target)
) WITHOUT ROWID;

CREATE INDEX build_link_by_target ON build_link (target);

-- What an operation made. Only builds of this engine write here, so nothing that was pulled, loaded or tagged
-- can pass for a cached step.
CREATE TABLE build_record (
    key          TEXT PRIMARY KEY,
    layers       TEXT NOT NULL,         -- JSON: [[diff id, created_ns or null], ...], bottom first
    description  TEXT NOT NULL,         -- the instruction, for people
    size_bytes   INTEGER NOT NULL,      -- of the files in the layers that the step added
    created_ns   INTEGER NOT NULL,
    used_ns      INTEGER NOT NULL,
    use_count    INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE build_record_layer (
    record      TEXT NOT NULL REFERENCES build_record (key) ON DELETE CASCADE,
    diff_id     TEXT NOT NULL,
    PRIMARY KEY (record, diff_id)
) WITHOUT ROWID;

CREATE INDEX build_record_layer_by_diff_id ON build_record_layer (diff_id);

-- Ids of images in the making that people have been shown, to tell "Using cache" for steps without files.
CREATE TABLE build_step (
    id          TEXT PRIMARY KEY,
    used_ns     INTEGER NOT NULL
) WITHOUT ROWID;
