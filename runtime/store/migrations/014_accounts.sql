-- Who somebody is outside, what they may do beside their role, the codes that change it, and who did what.

CREATE TABLE user_accounts (
    user_id       VARCHAR PRIMARY KEY,
    telegram_key  VARCHAR UNIQUE,           -- the salted hash of the Telegram id, as in grants; none without Telegram
    profile       BLOB,                     -- sealed: the Telegram id and the names
    authorized    BOOLEAN NOT NULL,
    verified      BOOLEAN NOT NULL,
    banned        BOOLEAN NOT NULL,
    logins        BIGINT NOT NULL           -- logins of another generation are worthless
);

CREATE TABLE invite_codes (
    code_hash   VARCHAR PRIMARY KEY,        -- SHA-256
    role        VARCHAR NOT NULL CHECK (role IN ('DEMO', 'FULL_ACCESS')),
    uses        BIGINT NOT NULL,
    uses_left   BIGINT NOT NULL CHECK (uses_left >= 0),
    revoked     BOOLEAN NOT NULL,
    expires_at  TIMESTAMPTZ,
    created_by  VARCHAR NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE invite_uses (
    code_hash  VARCHAR NOT NULL,
    user_id    VARCHAR NOT NULL,
    used_at    TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (code_hash, user_id)
);

-- Wrong codes. Without an index: they are few, and old ones go.
CREATE TABLE wrong_attempts (
    user_id  VARCHAR NOT NULL,
    guard    VARCHAR NOT NULL,
    address  VARCHAR NOT NULL,
    made_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE revoked_logins (
    login       VARCHAR PRIMARY KEY,
    user_id     VARCHAR NOT NULL,
    expires_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE login_links (
    link_sha256  VARCHAR PRIMARY KEY,
    user_id      VARCHAR NOT NULL,
    expires_at   TIMESTAMPTZ NOT NULL,
    used_at      TIMESTAMPTZ
);

CREATE TABLE audit_log (
    entry    VARCHAR PRIMARY KEY,
    actor    VARCHAR NOT NULL,
    action   VARCHAR NOT NULL,
    target   VARCHAR NOT NULL,
    details  VARCHAR NOT NULL,              -- a JSON object without names, codes and tokens
    address  VARCHAR NOT NULL,
    made_at  TIMESTAMPTZ NOT NULL
);

CREATE VIEW audit_logs AS
SELECT entry AS id, actor, action, target, details, address AS ip_address, made_at AS created_at FROM audit_log;
