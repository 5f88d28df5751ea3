-- What fills wallets and what is given back, caps of a day, accounts that are stopped, and notices.

ALTER TABLE users ADD COLUMN invited_by VARCHAR;
ALTER TABLE users ADD COLUMN is_low BOOLEAN DEFAULT false;  -- was told that little is left, and has not been above since

ALTER TABLE escrows ADD COLUMN provider VARCHAR DEFAULT '';

-- From which day on budgets count what is committed in a day: what was held before is in none of them.
CREATE TABLE day_counts (
    from_day  VARCHAR NOT NULL
);
INSERT INTO day_counts
SELECT CASE WHEN EXISTS (SELECT * FROM transfers) THEN strftime((now() + INTERVAL 1 DAY) AT TIME ZONE 'UTC', '%Y-%m-%d')
            ELSE '' END;

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

DROP VIEW credit_transactions;

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
