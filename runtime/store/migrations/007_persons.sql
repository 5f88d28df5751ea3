-- E-mail addresses, and people who asked to be erased.

ALTER TABLE users ADD COLUMN email BLOB;    -- sealed; none where there is none

CREATE TABLE erasures (
    pseudonym          VARCHAR PRIMARY KEY,     -- random: takes the place of the user's id
    user_id            VARCHAR,                 -- none from the moment it was replaced
    identity_sha256    VARCHAR NOT NULL,        -- salted, as in grants
    forfeits_ucredits  DECIMAL(38, 0) NOT NULL, -- what the wallet held when it was asked for
    asked_at           TIMESTAMPTZ NOT NULL,
    renamed_at         TIMESTAMPTZ,             -- when the rows were erased
    erased_at          TIMESTAMPTZ              -- and the last file
);

-- What is still to be removed, by its path in the data folder.
CREATE TABLE erasure_files (
    pseudonym  VARCHAR NOT NULL,
    file       VARCHAR NOT NULL
);
