-- What was paid for by the day, and payments with Telegram's Stars.

-- A running subscription is extended from its end, so periods of one person follow each other.
CREATE TABLE subscription_periods (
    purchase   VARCHAR PRIMARY KEY,
    user_id    VARCHAR NOT NULL,
    days       BIGINT NOT NULL,             -- as they were bought
    starts_at  TIMESTAMPTZ NOT NULL,
    ends_at    TIMESTAMPTZ NOT NULL         -- sooner where what was left was paid back
);

CREATE VIEW subscriptions AS
SELECT user_id, 'FULL_ACCESS' AS tier, max(ends_at) AS expires_at FROM subscription_periods GROUP BY user_id;

-- That somebody was told of the end (`ending`), and that it came and the role fell back (`ended`).
CREATE TABLE subscription_events (
    user_id     VARCHAR NOT NULL,
    expires_at  TIMESTAMPTZ NOT NULL,
    event       VARCHAR NOT NULL,
    made_at     TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (user_id, expires_at, event)
);

-- Every payment that Telegram took, also one that could not be credited: then `failure` says why. Never changed.
CREATE TABLE star_payments (
    charge_id           VARCHAR PRIMARY KEY,
    provider_charge_id  VARCHAR NOT NULL,
    user_id             VARCHAR NOT NULL,
    product             VARCHAR NOT NULL,
    stars               BIGINT NOT NULL,
    currency            VARCHAR NOT NULL,
    ucredits            DECIMAL(38, 0) NOT NULL,    -- none where it failed
    days                BIGINT NOT NULL,
    failure             VARCHAR NOT NULL,           -- empty where it was credited
    paid_at             TIMESTAMPTZ NOT NULL,
    booked_at           TIMESTAMPTZ NOT NULL
);

-- That the Stars go back. Booked here before Telegram is asked: `told_at` is when it had done it.
CREATE TABLE star_refunds (
    charge_id       VARCHAR PRIMARY KEY,
    taken_ucredits  DECIMAL(38, 0) NOT NULL,
    taken_us        BIGINT NOT NULL,                -- of the subscription, in microseconds
    reason          VARCHAR NOT NULL,
    made_by         VARCHAR NOT NULL,
    made_at         TIMESTAMPTZ NOT NULL,
    told_at         TIMESTAMPTZ
);

ALTER TABLE payment_orders ADD COLUMN days BIGINT DEFAULT 0;

-- The names that the specification gives.
CREATE VIEW payments AS
SELECT p.user_id, p.charge_id AS telegram_payment_charge_id, p.provider_charge_id AS provider_payment_charge_id,
       p.product AS product_id, p.product AS plan, p.stars AS amount_stars, p.stars AS stars_amount,
       p.ucredits::DECIMAL(30, 0) * 0.000001 AS credits_granted, p.currency,
       CASE WHEN r.charge_id IS NOT NULL THEN 'refunded' WHEN p.failure <> '' THEN 'failed' ELSE 'completed' END
           AS status,
       s.ends_at AS expires_at, p.booked_at AS created_at
FROM star_payments p
LEFT JOIN star_refunds r ON r.charge_id = p.charge_id
LEFT JOIN subscription_periods s ON s.purchase = 'telegram/' || p.charge_id;
