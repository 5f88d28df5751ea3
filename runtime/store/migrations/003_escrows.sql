-- Escrows: one durable hold for many calls of one payer, settled in batches. Tokens, keys and models gain what may be
-- said of them.

CREATE TABLE escrows (
    escrow            VARCHAR PRIMARY KEY,
    process           VARCHAR NOT NULL,             -- whose calls it is for
    user_id           VARCHAR NOT NULL,
    project           VARCHAR,
    token_sha256      VARCHAR NOT NULL,
    granted_ucredits  DECIMAL(38, 0) NOT NULL,      -- taken from the wallet and not given back
    charged_ucredits  DECIMAL(38, 0) NOT NULL,      -- the part of it that calls used; the rest is still held
    opened_at         TIMESTAMPTZ NOT NULL,
    ended_at          TIMESTAMPTZ
);

-- One row a call, written when all is known of it. A key by call is what makes settling twice harmless.
CREATE TABLE escrow_calls (
    call                      VARCHAR PRIMARY KEY,
    escrow                    VARCHAR NOT NULL,
    batch                     VARCHAR NOT NULL,
    task_type                 VARCHAR NOT NULL,
    provider                  VARCHAR NOT NULL,
    model                     VARCHAR NOT NULL,
    pricing_id                VARCHAR NOT NULL,
    input_udollars_per_mtok   BIGINT NOT NULL,
    output_udollars_per_mtok  BIGINT NOT NULL,
    input_tokens_max          BIGINT NOT NULL,
    output_tokens_max         BIGINT NOT NULL,
    outcome                   VARCHAR NOT NULL,
    input_tokens              BIGINT NOT NULL,
    output_tokens             BIGINT NOT NULL,
    cost_pusd                 DECIMAL(38, 0) NOT NULL,
    charge_ucredits           DECIMAL(38, 0) NOT NULL,
    loss_pusd                 DECIMAL(38, 0) NOT NULL,      -- the part of the cost that is the platform's
    response_time_ms          BIGINT NOT NULL,
    key_id                    VARCHAR NOT NULL,
    held_at                   TIMESTAMPTZ NOT NULL,
    settled_at                TIMESTAMPTZ NOT NULL
);

ALTER TABLE transfers ADD COLUMN escrow VARCHAR;
ALTER TABLE transfers ADD COLUMN batch VARCHAR;

-- A subject is a project's id, or `token:<sha256>`.
ALTER TABLE budgets RENAME COLUMN project TO subject;

ALTER TABLE call_holds ADD COLUMN token_sha256 VARCHAR DEFAULT '';
ALTER TABLE call_usages ADD COLUMN estimated BOOLEAN DEFAULT false;

ALTER TABLE users ADD COLUMN role VARCHAR DEFAULT 'DEMO';
UPDATE users SET role = 'ADMIN' WHERE is_admin;

ALTER TABLE tokens ADD COLUMN project VARCHAR;
ALTER TABLE tokens ADD COLUMN models VARCHAR[];
ALTER TABLE tokens ADD COLUMN budget_ucredits BIGINT;
ALTER TABLE tokens ADD COLUMN requests_per_minute BIGINT;

ALTER TABLE api_keys ADD COLUMN disabled BOOLEAN DEFAULT false;
ALTER TABLE api_keys ADD COLUMN limits VARCHAR DEFAULT '';

CREATE TABLE key_rotations (
    rotated_at  TIMESTAMPTZ NOT NULL,
    keys        BIGINT NOT NULL,
    old_master  VARCHAR NOT NULL,       -- fingerprints of the master keys
    new_master  VARCHAR NOT NULL
);

-- The catalogue's rows as an administrator set them; the newest that is in force counts.
CREATE TABLE models (
    provider        VARCHAR NOT NULL,
    model           VARCHAR NOT NULL,
    effective_from  TIMESTAMPTZ NOT NULL,
    pricing_id      VARCHAR NOT NULL,
    body            VARCHAR NOT NULL,       -- JSON
    set_at          TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (provider, model, effective_from)
);

DROP VIEW credit_transactions;
DROP VIEW usage_ledger;
DROP VIEW api_key_usage;
DROP VIEW calls;

-- A call with a hold of its own as it stands: what was held, used and decided. Without known usage its bounds stand in.
CREATE VIEW held_calls AS
SELECT h.call, h.user_id, h.run, h.project, h.token_sha256, h.task, h.attempt, h.task_type, h.provider, h.model,
       h.pricing_id, h.input_udollars_per_mtok, h.output_udollars_per_mtok, h.input_tokens_max, h.output_tokens_max,
       h.bound_pusd, h.hold_ucredits,
       coalesce(e.state, CASE WHEN u.call IS NULL THEN 'held' ELSE 'metered' END) AS state,
       CASE WHEN u.provider_failed THEN 'provider_failed'
            WHEN e.state = 'lost' AND u.call IS NULL THEN 'interrupted_unknown'
            WHEN e.state = 'lost' THEN 'interrupted'
            WHEN u.call IS NULL THEN 'pending'
            WHEN u.estimated THEN 'estimated'
            ELSE 'ok' END AS outcome,
       coalesce(u.input_tokens, h.input_tokens_max) AS input_tokens,
       coalesce(u.output_tokens, h.output_tokens_max) AS output_tokens,
       coalesce(u.cost_pusd, h.bound_pusd) AS cost_pusd,
       CASE WHEN e.state = 'lost' THEN 0 ELSE coalesce(u.charge_ucredits, h.hold_ucredits) END AS charge_ucredits,
       greatest(coalesce(u.cost_pusd, h.bound_pusd) - h.bound_pusd, 0)::DECIMAL(38, 0) AS excess_pusd,
       u.response_time_ms, u.key_id, h.held_at
FROM call_holds h
LEFT JOIN call_usages u ON u.call = h.call
LEFT JOIN call_ends e ON e.call = h.call;

-- Every call, whichever way it was held. One under an escrow shows what was charged as its hold.
CREATE VIEW calls AS
SELECT * FROM held_calls
UNION ALL
SELECT c.call, e.user_id, NULL AS run, e.project, e.token_sha256, '' AS task, 0 AS attempt, c.task_type, c.provider,
       c.model, c.pricing_id, c.input_udollars_per_mtok, c.output_udollars_per_mtok, c.input_tokens_max,
       c.output_tokens_max, c.cost_pusd AS bound_pusd, c.charge_ucredits AS hold_ucredits,
       CASE WHEN c.outcome = 'interrupted_unknown' THEN 'lost' ELSE 'settled' END AS state, c.outcome,
       c.input_tokens, c.output_tokens, c.cost_pusd, c.charge_ucredits,
       CASE WHEN c.outcome = 'interrupted_unknown' THEN 0 ELSE c.loss_pusd END AS excess_pusd,
       c.response_time_ms, c.key_id, c.held_at
FROM escrow_calls c
JOIN escrows e ON e.escrow = c.escrow;

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
LEFT JOIN held_calls c ON c.call = t.call
WHERE t.reason = 'grant' OR (t.reason = 'charge' AND t.escrow IS NULL)
UNION ALL
SELECT c.call || '/charge', e.user_id, e.project, c.call, 'usage_deduction',
       c.charge_ucredits::DECIMAL(30, 0) * -0.000001, c.cost_pusd::DECIMAL(25, 0) * 0.000000000001,
       NULL, 'charge', c.settled_at
FROM escrow_calls c
JOIN escrows e ON e.escrow = c.escrow
WHERE c.charge_ucredits > 0;
