-- What a call under an escrow costs to write: what many have in common is written once, and what was charged to an open
-- escrow stands in its transfers alone. Who reads sees what there was before.

ALTER TABLE escrows RENAME TO escrow_grants;
ALTER TABLE escrow_calls RENAME TO escrow_calls_before;

CREATE VIEW escrows AS
SELECT g.* REPLACE (CASE WHEN g.ended_at IS NULL THEN coalesce(c.charged, 0) ELSE g.charged_ucredits END
                    AS charged_ucredits)    -- of an ended one it is its own row's
FROM escrow_grants g
LEFT JOIN (SELECT escrow, sum(amount)::DECIMAL(38, 0) AS charged FROM transfers
           WHERE reason = 'charge' AND escrow IS NOT NULL GROUP BY escrow) c ON c.escrow = g.escrow;

CREATE TABLE call_traits (
    traits                    BIGINT PRIMARY KEY,   -- made of the rest
    task_type                 VARCHAR NOT NULL,
    provider                  VARCHAR NOT NULL,
    model                     VARCHAR NOT NULL,
    pricing_id                VARCHAR NOT NULL,
    input_udollars_per_mtok   BIGINT NOT NULL,
    output_udollars_per_mtok  BIGINT NOT NULL,
    image_udollars            BIGINT NOT NULL,
    key_id                    VARCHAR NOT NULL,
    outcome                   VARCHAR NOT NULL
);

-- One row a call, written when all is known of it. A key by call is what makes settling twice harmless.
CREATE TABLE settled_calls (
    call               VARCHAR PRIMARY KEY,
    escrow             VARCHAR NOT NULL,
    batch              VARCHAR NOT NULL,
    traits             BIGINT NOT NULL,
    input_tokens_max   BIGINT NOT NULL,
    output_tokens_max  BIGINT NOT NULL,
    input_tokens       BIGINT NOT NULL,
    output_tokens      BIGINT NOT NULL,
    images             BIGINT NOT NULL,
    cost_pusd          DECIMAL(38, 0) NOT NULL,
    charge_ucredits    DECIMAL(38, 0) NOT NULL,
    loss_pusd          DECIMAL(38, 0) NOT NULL,     -- the part of the cost that is the platform's
    response_time_ms   BIGINT NOT NULL,
    held_at            TIMESTAMPTZ NOT NULL,
    settled_at         TIMESTAMPTZ NOT NULL
);

INSERT INTO call_traits
SELECT row_number() OVER (), *
FROM (SELECT DISTINCT task_type, provider, model, pricing_id, input_udollars_per_mtok, output_udollars_per_mtok,
                      coalesce(image_udollars, 0), key_id, outcome
      FROM escrow_calls_before);

INSERT INTO settled_calls
SELECT b.call, b.escrow, b.batch, t.traits, b.input_tokens_max, b.output_tokens_max, b.input_tokens, b.output_tokens,
       coalesce(b.images, 0), b.cost_pusd, b.charge_ucredits, b.loss_pusd, b.response_time_ms, b.held_at, b.settled_at
FROM escrow_calls_before b
JOIN call_traits t
  ON (t.task_type, t.provider, t.model, t.pricing_id, t.input_udollars_per_mtok, t.output_udollars_per_mtok,
      t.image_udollars, t.key_id, t.outcome)
   = (b.task_type, b.provider, b.model, b.pricing_id, b.input_udollars_per_mtok, b.output_udollars_per_mtok,
      coalesce(b.image_udollars, 0), b.key_id, b.outcome)
ORDER BY b.settled_at;

DROP TABLE escrow_calls_before;

CREATE VIEW escrow_calls AS
SELECT c.call, c.escrow, c.batch, t.task_type, t.provider, t.model, t.pricing_id, t.input_udollars_per_mtok,
       t.output_udollars_per_mtok, c.input_tokens_max, c.output_tokens_max, t.outcome, c.input_tokens, c.output_tokens,
       c.cost_pusd, c.charge_ucredits, c.loss_pusd, c.response_time_ms, t.key_id, c.held_at, c.settled_at, c.images,
       t.image_udollars
FROM settled_calls c JOIN call_traits t ON t.traits = c.traits;
