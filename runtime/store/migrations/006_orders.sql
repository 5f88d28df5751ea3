-- Orders of credits: written before anything is paid, completed by the payment that its provider confirms.
CREATE TABLE payment_orders (
    order_id      VARCHAR PRIMARY KEY,
    user_id       VARCHAR NOT NULL,
    provider      VARCHAR NOT NULL,
    product       VARCHAR NOT NULL,
    ucredits      DECIMAL(38, 0) NOT NULL,
    amount_minor  BIGINT NOT NULL,              -- in the currency's smallest unit
    currency      VARCHAR NOT NULL,
    paid_pusd     DECIMAL(38, 0) NOT NULL,      -- what the amount is worth
    state         VARCHAR NOT NULL,             -- pending, completed, refunded, failed
    external_id   VARCHAR,                      -- the provider's own name for the payment
    created_at    TIMESTAMPTZ NOT NULL,
    completed_at  TIMESTAMPTZ
);
