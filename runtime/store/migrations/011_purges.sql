-- Projects whose period was over: their events, files and index are gone, their rows of money stay.
CREATE TABLE purge_log (
    project    VARCHAR PRIMARY KEY,
    user_id    VARCHAR NOT NULL,
    files      BIGINT NOT NULL,        -- that its journal named
    purged_at  TIMESTAMPTZ NOT NULL
);
