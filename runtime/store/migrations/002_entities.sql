-- The journal without an index: an entry is found by its position, which the one writer counts. Positions only grow
-- and are never given twice, so a range of them is a range of the file, and the entity's own row says which are its.
-- What every append updates is not compressed: DuckDB unpacks 2,048 old values to change one. Nor is what is sealed:
-- there is nothing to gain.

CREATE TABLE entries (
    position  BIGINT NOT NULL,
    entity    VARCHAR NOT NULL,
    seq       BIGINT NOT NULL,          -- of the event; of a snapshot: of the last event that is in it
    epoch     BIGINT NOT NULL,
    type      VARCHAR,                  -- of the event; none: a snapshot
    version   BIGINT NOT NULL,
    drops     BOOLEAN NOT NULL,         -- a snapshot that lets the events up to it be compacted away
    payload   BLOB NOT NULL USING COMPRESSION uncompressed,     -- event's key and data, or snapshot's data; sealed
    made_at   TIMESTAMPTZ NOT NULL
);

INSERT INTO entries
SELECT row_number() OVER (ORDER BY rowid) - 1, entity, seq, epoch, type, version, false, payload, made_at
FROM events ORDER BY rowid;

DROP TABLE events;

CREATE TABLE entities_new (
    entity          VARCHAR PRIMARY KEY,
    number          BIGINT NOT NULL,    -- in order of creation: finds the row of an update faster than its name
    kind            VARCHAR NOT NULL,
    owner           VARCHAR NOT NULL,
    last_seq        BIGINT NOT NULL USING COMPRESSION uncompressed,
    open            BOOLEAN NOT NULL,
    head            BLOB NOT NULL USING COMPRESSION uncompressed,           -- sealed
    updated_at      TIMESTAMPTZ NOT NULL USING COMPRESSION uncompressed,
    first_position  BIGINT NOT NULL,    -- nothing of the entity stands before it
    tail            VARCHAR NOT NULL USING COMPRESSION uncompressed         -- where the newest entries stand: see tail.py
);

INSERT INTO entities_new
SELECT e.entity, row_number() OVER (ORDER BY e.rowid) - 1, e.kind, e.owner, e.last_seq, e.open, e.head, e.updated_at,
       coalesce(t.first_position, 0), CASE WHEN t.count > 256 THEN '*' ELSE coalesce(t.tail, '') END
FROM entities e
LEFT JOIN (SELECT entity, count(*) AS count, min(position) AS first_position,
                  string_agg(position::VARCHAR, ' ' ORDER BY seq) AS tail
           FROM entries GROUP BY entity) t ON t.entity = e.entity
ORDER BY e.rowid;

DROP TABLE entities;

ALTER TABLE entities_new RENAME TO entities;

-- One a name and entity: the one writer removes the old before it adds the new.
CREATE TABLE reminders (
    entity     VARCHAR NOT NULL,
    name       VARCHAR NOT NULL,
    partition  BIGINT NOT NULL,
    due_at     TIMESTAMPTZ NOT NULL,
    data       BLOB NOT NULL            -- sealed
);
