-- A loss says whether what it cost is known or our estimate.
CREATE OR REPLACE VIEW held_calls AS
SELECT h.call, h.user_id, h.run, h.project, h.token_sha256, h.task, h.attempt, h.task_type, h.provider, h.model,
       h.pricing_id, h.input_udollars_per_mtok, h.output_udollars_per_mtok, h.input_tokens_max, h.output_tokens_max,
       h.bound_pusd, h.hold_ucredits,
       coalesce(e.state, CASE WHEN u.call IS NULL THEN 'held' ELSE 'metered' END) AS state,
       CASE WHEN u.provider_failed THEN 'provider_failed'
            WHEN e.state = 'lost' AND u.call IS NULL THEN 'interrupted_unknown'
            WHEN e.state = 'lost' AND u.estimated THEN 'interrupted_estimated'
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
