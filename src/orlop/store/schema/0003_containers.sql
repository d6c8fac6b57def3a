-- Containers and volumes. Owner: orlop.engine. The documents are JSON of engine/model.py.

CREATE TABLE container (
    id          TEXT PRIMARY KEY,       -- 64 hex digits; also the key of its snapshot
    name        TEXT NOT NULL UNIQUE,   -- without slash
    image_id    TEXT NOT NULL,          -- config digest; the image itself may be gone
    created_ns  INTEGER NOT NULL,
    record      TEXT NOT NULL,          -- what was asked for (model.Record)
    state       TEXT NOT NULL           -- last known state (model.State); boot facts are in the run dir
) WITHOUT ROWID;

CREATE INDEX container_by_image ON container (image_id);

CREATE TABLE volume (
    name          TEXT PRIMARY KEY,     -- names volumes/<name>
    driver        TEXT NOT NULL,
    is_anonymous  INTEGER NOT NULL,
    created_ns    INTEGER NOT NULL,
    labels        TEXT NOT NULL,        -- JSON object or null
    options       TEXT NOT NULL         -- JSON object or null
) WITHOUT ROWID;
