-- Facts are only ever added. The rows that change are balances, budgets, heads, partitions, and a few flags.
-- Amounts are integers: microcredits in columns named _ucredits, picodollars in columns named _pusd.

CREATE TABLE cluster (
    cluster_id  VARCHAR PRIMARY KEY,
    key_check   BLOB NOT NULL,          -- the cluster id, sealed: tells a wrong data key at once
    created_at  TIMESTAMPTZ NOT NULL
);

-- Entities -----------------------------------------------------------------------------------------------------

CREATE TABLE partitions (
    partition    VARCHAR PRIMARY KEY,
    epoch        BIGINT NOT NULL,
    host         VARCHAR NOT NULL,
    incarnation  VARCHAR NOT NULL
);

CREATE TABLE entities (
    entity      VARCHAR PRIMARY KEY,
    kind        VARCHAR NOT NULL,
    owner       VARCHAR NOT NULL,
    last_seq    BIGINT NOT NULL,
    open        BOOLEAN NOT NULL,
    head        BLOB NOT NULL,          -- sealed
    updated_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE events (
    event_sha256  BLOB PRIMARY KEY,     -- of entity and key: one fact, once
    entity        VARCHAR NOT NULL,
    seq           BIGINT NOT NULL,
    epoch         BIGINT NOT NULL,
    type          VARCHAR NOT NULL,
    version       BIGINT NOT NULL,
    payload       BLOB NOT NULL,        -- key and data, sealed
    made_at       TIMESTAMPTZ NOT NULL
);

-- People and what they may use ---------------------------------------------------------------------------------

CREATE TABLE users (
    user_id     VARCHAR PRIMARY KEY,
    is_admin    BOOLEAN NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE grants (
    identity_sha256  VARCHAR PRIMARY KEY,   -- salted; outlives the user
    granted_at       TIMESTAMPTZ NOT NULL
);

CREATE TABLE tokens (
    token_sha256  VARCHAR PRIMARY KEY,
    user_id       VARCHAR NOT NULL,
    kind          VARCHAR NOT NULL,
    label         BLOB NOT NULL,            -- sealed: a person chose it
    run           VARCHAR,
    expires_at    TIMESTAMPTZ,
    revoked_at    TIMESTAMPTZ,
    created_at    TIMESTAMPTZ NOT NULL
);

CREATE TABLE api_keys (
    key_id      VARCHAR NOT NULL,
    provider    VARCHAR NOT NULL,
    label       VARCHAR NOT NULL,
    sealed      BLOB NOT NULL,
    is_active   BOOLEAN NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (provider, key_id)
);

CREATE TABLE model_pricing (
    pricing_id               VARCHAR PRIMARY KEY,
    provider                 VARCHAR NOT NULL,
    model                    VARCHAR NOT NULL,
    input_udollars_per_mtok  BIGINT NOT NULL,
    output_udollars_per_mtok BIGINT NOT NULL,
    is_active                BOOLEAN NOT NULL,
    effective_from           TIMESTAMPTZ NOT NULL
);

-- Money --------------------------------------------------------------------------------------------------------

CREATE TABLE accounts (
    account  VARCHAR PRIMARY KEY,
    unit     VARCHAR NOT NULL CHECK (unit IN ('credit', 'usd')),
    balance  DECIMAL(38, 0) NOT NULL        -- credited minus debited: microcredits or picodollars
);

CREATE TABLE transfers (
    transfer_id  VARCHAR PRIMARY KEY,       -- made from the caller's ids, so that nothing is posted twice
    unit         VARCHAR NOT NULL,
    debit        VARCHAR NOT NULL,
    credit       VARCHAR NOT NULL,
    amount       DECIMAL(38, 0) NOT NULL CHECK (amount > 0),
    reason       VARCHAR NOT NULL,
    call         VARCHAR,
    user_id      VARCHAR,
    project      VARCHAR,
    made_at      TIMESTAMPTZ NOT NULL
);

CREATE TABLE budgets (
    project             VARCHAR PRIMARY KEY,
    ceiling_ucredits    DECIMAL(38, 0),             -- none: only the wallet is a bound
    committed_ucredits  DECIMAL(38, 0) NOT NULL     -- held, metered and settled
);

CREATE TABLE runs (
    run       VARCHAR PRIMARY KEY,
    user_id   VARCHAR NOT NULL,
    project   VARCHAR NOT NULL,
    task      VARCHAR NOT NULL,
    attempt   BIGINT NOT NULL,
    begun_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE run_ends (
    run       VARCHAR PRIMARY KEY,
    state     VARCHAR NOT NULL CHECK (state IN ('settled', 'abandoned')),
    ended_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE call_holds (
    call                      VARCHAR PRIMARY KEY,
    user_id                   VARCHAR NOT NULL,
    run                       VARCHAR,
    project                   VARCHAR,
    task                      VARCHAR NOT NULL,
    attempt                   BIGINT NOT NULL,
    task_type                 VARCHAR NOT NULL,
    provider                  VARCHAR NOT NULL,
    model                     VARCHAR NOT NULL,
    pricing_id                VARCHAR NOT NULL,
    input_udollars_per_mtok   BIGINT NOT NULL,
    output_udollars_per_mtok  BIGINT NOT NULL,
    input_tokens_max          BIGINT NOT NULL,
    output_tokens_max         BIGINT NOT NULL,
    bound_pusd                DECIMAL(38, 0) NOT NULL,
    hold_ucredits             DECIMAL(38, 0) NOT NULL,
    held_at                   TIMESTAMPTZ NOT NULL
);

CREATE TABLE call_usages (
    call              VARCHAR PRIMARY KEY,
    input_tokens      BIGINT NOT NULL,
    output_tokens     BIGINT NOT NULL,
    cost_pusd         DECIMAL(38, 0) NOT NULL,
    charge_ucredits   DECIMAL(38, 0) NOT NULL,
    provider_failed   BOOLEAN NOT NULL,
    response_time_ms  BIGINT NOT NULL,
    key_id            VARCHAR NOT NULL,
    metered_at        TIMESTAMPTZ NOT NULL
);

CREATE TABLE call_ends (
    call      VARCHAR PRIMARY KEY,
    state     VARCHAR NOT NULL CHECK (state IN ('settled', 'lost')),
    ended_at  TIMESTAMPTZ NOT NULL
);

-- A call as it stands: what was held, used and decided, in one row. Without known usage its bounds stand in.
CREATE VIEW calls AS
SELECT h.*,
       coalesce(e.state, CASE WHEN u.call IS NULL THEN 'held' ELSE 'metered' END) AS state,
       CASE WHEN u.provider_failed THEN 'provider_failed'
            WHEN e.state = 'lost' AND u.call IS NULL THEN 'interrupted_unknown'
            WHEN e.state = 'lost' THEN 'interrupted'
            WHEN u.call IS NULL THEN 'pending'
            ELSE 'ok' END AS outcome,
       coalesce(u.input_tokens, h.input_tokens_max) AS input_tokens,
       coalesce(u.output_tokens, h.output_tokens_max) AS output_tokens,
       coalesce(u.cost_pusd, h.bound_pusd) AS cost_pusd,
       CASE WHEN e.state = 'lost' THEN 0 ELSE coalesce(u.charge_ucredits, h.hold_ucredits) END AS charge_ucredits,
       u.response_time_ms, u.key_id
FROM call_holds h
LEFT JOIN call_usages u ON u.call = h.call
LEFT JOIN call_ends e ON e.call = h.call;

-- The names that the specification gives. Decimals are exact: dividing would make them floats.
CREATE VIEW api_key_usage AS
SELECT call AS id, call AS request_id, project AS project_id, user_id, key_id AS api_key_id, pricing_id,
       provider, model AS model_name, task AS todo_item_id, task_type,
       input_tokens AS input_tokens_used, output_tokens AS output_tokens_used, 0 AS images_processed,
       cost_pusd, cost_pusd::DECIMAL(25, 0) * 0.000000000001 AS actual_cost_usd,
       response_time_ms, outcome, held_at AS created_at
FROM calls;

CREATE VIEW usage_ledger AS SELECT * FROM api_key_usage;

CREATE VIEW credit_transactions AS
SELECT t.transfer_id AS id, t.user_id, t.project AS project_id, t.call AS api_key_usage_id,
       CASE t.reason WHEN 'grant' THEN 'initial_grant' ELSE 'usage_deduction' END AS transaction_type,
       t.amount::DECIMAL(30, 0) * CASE t.reason WHEN 'grant' THEN 0.000001 ELSE -0.000001 END AS credits_amount,
       c.cost_pusd::DECIMAL(25, 0) * 0.000000000001 AS real_cost_associated_usd,
       NULL::VARCHAR AS external_transaction_id, t.reason AS description, t.made_at AS created_at
FROM transfers t
LEFT JOIN calls c ON c.call = t.call
WHERE t.reason IN ('grant', 'charge');
