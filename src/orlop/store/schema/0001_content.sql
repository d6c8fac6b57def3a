-- Bytes on disk and who needs them. Owner: orlop.store. A row is written after its bytes are durable.

CREATE TABLE blob (
    digest      TEXT PRIMARY KEY,       -- algorithm:hex, names blobs/<algorithm>/<hex>
    size_bytes  INTEGER NOT NULL CHECK (size_bytes >= 0),
    created_ns  INTEGER NOT NULL
) WITHOUT ROWID;

-- A lease holds what is in flight and not yet reachable from a root.
CREATE TABLE lease (
    id                    TEXT PRIMARY KEY,
    purpose               TEXT NOT NULL,
    created_ns            INTEGER NOT NULL,
    expires_ns            INTEGER NOT NULL, -- wall clock: counts after a reboot
    boot_id               TEXT NOT NULL,
    expires_monotonic_ns  INTEGER NOT NULL  -- counts within the boot: clock jumps expire nothing early
) WITHOUT ROWID;

CREATE TABLE lease_ref (
    lease  TEXT NOT NULL REFERENCES lease (id) ON DELETE CASCADE,
    kind   TEXT NOT NULL,               -- kind of a Resource: blob, layer, image, ...
    key    TEXT NOT NULL,
    PRIMARY KEY (lease, kind, key)
) WITHOUT ROWID;

CREATE INDEX lease_ref_by_target ON lease_ref (kind, key);
