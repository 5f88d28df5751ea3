-- What fills wallets and what is given back, caps of a day, accounts that are stopped, and notices.

ALTER TABLE users ADD COLUMN invited_by VARCHAR;
ALTER TABLE users ADD COLUMN is_low BOOLEAN DEFAULT false;  -- was told that little is left, and has not been above since

ALTER TABLE escrows ADD COLUMN provider VARCHAR DEFAULT '';

CREATE TABLE purchases (
    purchase      VARCHAR PRIMARY KEY,          -- <provider>/<external id>
    provider      VARCHAR NOT NULL,
    external_id   VARCHAR NOT NULL,
    user_id       VARCHAR NOT NULL,
    product       VARCHAR NOT NULL,
    ucredits      DECIMAL(38, 0) NOT NULL,
    paid_pusd     DECIMAL(38, 0) NOT NULL,
    currency      VARCHAR NOT NULL,
    amount_minor  BIGINT NOT NULL,              -- in the currency's smallest unit
    made_at       TIMESTAMPTZ NOT NULL
);

CREATE TABLE repayments (
    purchase        VARCHAR PRIMARY KEY,
    taken_ucredits  DECIMAL(38, 0) NOT NULL,    -- what of its credits was still there
    reason          VARCHAR NOT NULL,
    made_at         TIMESTAMPTZ NOT NULL
);

CREATE TABLE adjustments (
    adjustment       VARCHAR PRIMARY KEY,
    user_id          VARCHAR NOT NULL,
    amount_ucredits  DECIMAL(38, 0) NOT NULL,
    reason           VARCHAR NOT NULL,
    made_by          VARCHAR NOT NULL,
    made_at          TIMESTAMPTZ NOT NULL
);

CREATE TABLE call_refunds (
    call             VARCHAR PRIMARY KEY,
    user_id          VARCHAR NOT NULL,
    project          VARCHAR,
    amount_ucredits  DECIMAL(38, 0) NOT NULL,
    reason           VARCHAR NOT NULL,
    made_by          VARCHAR NOT NULL,
    made_at          TIMESTAMPTZ NOT NULL
);

-- Accounts that do not add up: nothing is spent from them until somebody looked.
CREATE TABLE stops (
    user_id    VARCHAR PRIMARY KEY,
    reason     VARCHAR NOT NULL,
    since      TIMESTAMPTZ NOT NULL,
    lifted_at  TIMESTAMPTZ
);

-- What an operator is to know: raised once, cleared when it is over.
CREATE TABLE alerts (
    alert       VARCHAR PRIMARY KEY,
    condition   VARCHAR NOT NULL,               -- what it is about: one of a condition is open at a time
    text        VARCHAR NOT NULL,
    raised_at   TIMESTAMPTZ NOT NULL,
    cleared_at  TIMESTAMPTZ
);

-- What a user is to know, until a door has told them.
CREATE TABLE notices (
    notice   VARCHAR PRIMARY KEY,
    user_id  VARCHAR NOT NULL,
    kind     VARCHAR NOT NULL,
    text     VARCHAR NOT NULL,
    made_at  TIMESTAMPTZ NOT NULL,
    told_at  TIMESTAMPTZ
);

-- What a picture costs, and how many a call showed.
ALTER TABLE model_pricing ADD COLUMN image_udollars BIGINT DEFAULT 0;
ALTER TABLE call_holds ADD COLUMN images BIGINT DEFAULT 0;
ALTER TABLE call_holds ADD COLUMN image_udollars BIGINT DEFAULT 0;
ALTER TABLE escrow_calls ADD COLUMN images BIGINT DEFAULT 0;
ALTER TABLE escrow_calls ADD COLUMN image_udollars BIGINT DEFAULT 0;

DROP VIEW credit_transactions;
DROP VIEW usage_ledger;
DROP VIEW api_key_usage;
DROP VIEW calls;
DROP VIEW held_calls;

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
       u.response_time_ms, u.key_id, h.images, h.image_udollars, h.held_at
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
       c.response_time_ms, c.key_id, c.images, c.image_udollars, c.held_at
FROM escrow_calls c
JOIN escrows e ON e.escrow = c.escrow;

-- The names that the specification gives. Decimals are exact: dividing would make them floats.
CREATE VIEW api_key_usage AS
SELECT call AS id, call AS request_id, project AS project_id, user_id, key_id AS api_key_id, pricing_id,
       provider, model AS model_name, task AS todo_item_id, task_type,
       input_tokens AS input_tokens_used, output_tokens AS output_tokens_used, images AS images_processed,
       cost_pusd, cost_pusd::DECIMAL(25, 0) * 0.000000000001 AS actual_cost_usd,
       response_time_ms, outcome, held_at AS created_at
FROM calls;

CREATE VIEW usage_ledger AS SELECT * FROM api_key_usage;

-- Everything that changed a wallet's balance, as the specification names it. Amounts are whole microcredits.
CREATE VIEW movements AS
SELECT t.transfer_id AS id, t.user_id, t.project AS project_id, coalesce(t.call, r.call) AS api_key_usage_id,
       CASE t.reason WHEN 'grant' THEN 'initial_grant' WHEN 'charge' THEN 'usage_deduction'
                     WHEN 'purchase' THEN 'purchase' WHEN 'referral' THEN 'referral_bonus'
                     WHEN 'adjustment' THEN 'manual_adjustment' ELSE 'refund' END AS transaction_type,
       CASE WHEN t.debit LIKE 'user:%' THEN -t.amount ELSE t.amount END AS amount_ucredits,
       c.cost_pusd AS cost_pusd, p.external_id AS external_transaction_id,
       coalesce(r.reason, a.reason, b.reason, p.product, t.reason) AS description, t.made_at AS created_at
FROM transfers t
LEFT JOIN held_calls c ON c.call = t.call
LEFT JOIN call_refunds r ON t.reason = 'refund' AND r.call || '/refund' = t.transfer_id
LEFT JOIN adjustments a ON t.reason = 'adjustment' AND 'adjustment/' || a.adjustment || '/adjustment' = t.transfer_id
LEFT JOIN purchases p ON t.reason IN ('purchase', 'repayment')
      AND t.transfer_id = 'purchase/' || p.purchase || '/' || t.reason
LEFT JOIN repayments b ON t.reason = 'repayment' AND 'purchase/' || b.purchase || '/repayment' = t.transfer_id
WHERE t.reason IN ('grant', 'purchase', 'repayment', 'referral', 'adjustment', 'refund')
   OR (t.reason = 'charge' AND t.escrow IS NULL)
UNION ALL
SELECT c.call || '/charge', e.user_id, e.project, c.call, 'usage_deduction', -c.charge_ucredits, c.cost_pusd,
       NULL, 'charge', c.settled_at
FROM escrow_calls c
JOIN escrows e ON e.escrow = c.escrow
WHERE c.charge_ucredits > 0;

-- Decimals are exact: dividing would make them floats.
CREATE VIEW credit_transactions AS
SELECT id, user_id, project_id, api_key_usage_id, transaction_type,
       amount_ucredits::DECIMAL(30, 0) * 0.000001 AS credits_amount,
       cost_pusd::DECIMAL(25, 0) * 0.000000000001 AS real_cost_associated_usd,
       external_transaction_id, description, created_at
FROM movements;
