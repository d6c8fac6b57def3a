-- Networks made by users, and the default bridge. Owner: orlop.engine. What a running container has of
-- a network (addresses, ports) is boot-scoped and lies in its run dir.

CREATE TABLE network (
    id          TEXT PRIMARY KEY,       -- 64 hex digits
    name        TEXT NOT NULL UNIQUE,
    created_ns  INTEGER NOT NULL,
    document    TEXT NOT NULL           -- JSON of engine/network_model.py (NetworkRecord)
) WITHOUT ROWID;
