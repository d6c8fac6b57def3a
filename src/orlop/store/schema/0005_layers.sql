-- Layers and snapshots. Owner: orlop.store. A row is written after the bytes it names are durable.

CREATE TABLE layer (
    diff_id        TEXT PRIMARY KEY,    -- digest of the plain tar; its hex names layers/<hex>
    size_bytes     INTEGER NOT NULL,    -- of the tar
    file_bytes     INTEGER NOT NULL,    -- of the layer file, holes included
    content_bytes  INTEGER NOT NULL,    -- of the files in it, each inode once
    entry_count    INTEGER NOT NULL,
    is_opaque      INTEGER NOT NULL,    -- its root hides all layers below
    has_root       INTEGER NOT NULL,    -- its tar says what the root directory looks like
    created_ns     INTEGER NOT NULL
) WITHOUT ROWID;

-- A writable directory over layers. One without a lease stays until it is discarded.
CREATE TABLE snapshot (
    key         TEXT PRIMARY KEY,       -- names snapshots/<key>
    is_kept     INTEGER NOT NULL,       -- 1: needed for its own sake; 0: while a lease or an edge holds it
    created_ns  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE snapshot_layer (
    snapshot  TEXT NOT NULL REFERENCES snapshot (key) ON DELETE CASCADE,
    position  INTEGER NOT NULL,         -- 0 is the bottom
    diff_id   TEXT NOT NULL,
    PRIMARY KEY (snapshot, position)
) WITHOUT ROWID;

CREATE INDEX snapshot_layer_by_diff_id ON snapshot_layer (diff_id);
