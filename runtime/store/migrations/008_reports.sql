-- What an owner wrote beside a score, sealed. A score from before it has none.
ALTER TABLE project_feedback ADD COLUMN text_sealed BLOB;

-- Which price a model has when. What an administrator set counts from its date on; before it, and for all others, the
-- built-in one.
CREATE VIEW prices_in_time AS
WITH every AS (
    SELECT provider, model, effective_from AS in_force_from, effective_from AS price_from,
           coalesce(json_extract_string(body, '$.is_active'), 'true') = 'true' AS is_active
    FROM models
    UNION ALL
    SELECT provider, model, '-infinity'::TIMESTAMPTZ, effective_from, true
    FROM model_pricing WHERE is_active AND pricing_id NOT IN (SELECT pricing_id FROM models)
)
SELECT provider, model, price_from, is_active, in_force_from,
       lead(in_force_from, 1, 'infinity'::TIMESTAMPTZ)
           OVER (PARTITION BY provider, model ORDER BY in_force_from) AS in_force_until
FROM every;

-- That an index came to a commit, how long that took, and how long the questions took that were asked of it meanwhile.
CREATE TABLE index_updates (
    project       VARCHAR NOT NULL,
    commit_id     VARCHAR NOT NULL,
    chunks        BIGINT NOT NULL,
    update_ms     BIGINT NOT NULL,
    queries       BIGINT NOT NULL,
    query_ms      BIGINT NOT NULL,      -- of all of them together
    query_ms_max  BIGINT NOT NULL,
    made_at       TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (project, commit_id)
);
