-- One statement a report, and what alerts look at. A report's statement makes its whole table: columns named with
-- their units, amounts as DECIMAL(38, 0), rows in the order in which they are shown. $since and $until are never null.

-- name: report_completion
WITH projects AS (
    SELECT project, status, epoch_us(ended_at) - epoch_us(opened_at) AS total_us
    FROM project_facts WHERE opened_at >= $since AND opened_at < $until
),
stays AS (
    SELECT s.project, s.status, epoch_us(lead(s.made_at) OVER (PARTITION BY s.project ORDER BY s.seq))
                                - epoch_us(s.made_at) AS stay_us
    FROM project_statuses s JOIN projects p ON p.project = s.project
),
stages AS (
    SELECT project, status, sum(stay_us) AS stay_us FROM stays WHERE stay_us IS NOT NULL GROUP BY ALL
),
parts AS (
    SELECT 1 AS part_number, 'rate' AS part, 'completed of all that ended' AS name,
           count(*) FILTER (status = 'completed') AS projects, count(*) AS of_projects, NULL::DOUBLE AS us_mean,
           NULL::DOUBLE AS us_median, NULL::DOUBLE AS us_max
    FROM projects WHERE total_us IS NOT NULL
    UNION ALL
    SELECT 2, 'status', status, count(*), (SELECT count(*) FROM projects), NULL, NULL, NULL
    FROM projects GROUP BY status
    UNION ALL
    SELECT 3, 'total time', status, count(*), NULL, avg(total_us), median(total_us), max(total_us)
    FROM projects WHERE total_us IS NOT NULL GROUP BY status
    UNION ALL
    SELECT 4, 'time in stage', status, count(*), NULL, avg(stay_us), median(stay_us), max(stay_us)
    FROM stages GROUP BY status
)
SELECT part, name, projects, round(100.0 * projects / nullif(of_projects, 0), 1)::DOUBLE AS share_percent,
       round(us_mean / 1e6, 1) AS mean_s, round(us_median / 1e6, 1) AS median_s, round(us_max / 1e6, 1) AS max_s
FROM parts ORDER BY part_number, projects DESC, name

-- name: report_satisfaction
WITH weeks AS (
    SELECT date_trunc('week', made_at AT TIME ZONE 'UTC')::DATE AS week, score
    FROM project_feedback WHERE made_at >= $since AND made_at < $until
),
sums AS (
    SELECT week, count(*) AS scores, avg(score) AS mean,
           count(*) FILTER (score = 1) AS score_1, count(*) FILTER (score = 2) AS score_2,
           count(*) FILTER (score = 3) AS score_3, count(*) FILTER (score = 4) AS score_4,
           count(*) FILTER (score = 5) AS score_5
    FROM weeks GROUP BY GROUPING SETS ((week), ())
)
SELECT coalesce(strftime(week, '%Y-%m-%d'), 'all') AS week_from, scores, round(mean, 2) AS score_mean,
       CASE WHEN week IS NOT NULL
            THEN round(mean - lag(mean) OVER (PARTITION BY week IS NULL ORDER BY week), 2) END AS score_change,
       score_1, score_2, score_3, score_4, score_5
FROM sums ORDER BY week NULLS LAST

-- A try is a verdict or an attempt. Where several models served one, it counts for each.
-- name: report_agents
WITH cycles AS (
    SELECT project, phase, cycle, verdict = 'pass' AS passed, items_checked
    FROM verification_cycles WHERE made_at >= $since AND made_at < $until
),
attempts AS (
    SELECT project, task, attempt, outcome = 'merged' AS passed, epoch_us(ended_at) - epoch_us(started_at) AS us
    FROM task_attempts WHERE outcome IS NOT NULL AND ended_at >= $since AND ended_at < $until
),
served AS (
    SELECT DISTINCT project, task, attempt, task_type, provider || '/' || model AS model
    FROM held_calls WHERE run IS NOT NULL AND outcome NOT IN ('provider_failed', 'pending')
),
tries AS (
    SELECT 1 AS part_number, 'verification' AS part, CASE phase WHEN 0 THEN 'final review' ELSE 'phase' END AS name,
           passed, NULL AS item, items_checked, NULL::BIGINT AS us
    FROM cycles
    UNION ALL
    SELECT 2, 'verification by model', s.model, c.passed, NULL, c.items_checked, NULL
    FROM cycles c JOIN served s ON s.project = c.project AND s.attempt = c.cycle
     AND s.task_type = CASE c.phase WHEN 0 THEN 'review' ELSE 'verification' END
     AND s.task = CASE c.phase WHEN 0 THEN 'qa.review' ELSE 'verify.phase P' || c.phase END
    UNION ALL
    SELECT 3, 'items', 'all', passed, project || '/' || task, NULL, us FROM attempts
    UNION ALL
    SELECT 4, 'items by model', s.model, a.passed, a.project || '/' || a.task, NULL, a.us
    FROM attempts a JOIN served s ON s.project = a.project AND s.task = a.task AND s.attempt = a.attempt
)
SELECT part, name, count(*) AS tries, count(*) FILTER (passed) AS passed, count(*) FILTER (NOT passed) AS failed,
       round(100.0 * count(*) FILTER (passed) / count(*), 1)::DOUBLE AS passed_percent,
       coalesce(sum(items_checked), count(DISTINCT item))::BIGINT AS items,
       CASE WHEN part_number > 2 THEN round((count(*) - count(DISTINCT item)) / count(DISTINCT item), 2) END
           AS rework_rounds_per_item,
       round(sum(us) / 1e6 / nullif(count(DISTINCT item), 0), 1)::DOUBLE AS seconds_per_item
FROM tries GROUP BY part_number, part, name ORDER BY part_number, tries DESC, name

-- A commit is in the index as soon as the index came to it or to a later one.
-- name: report_index
WITH commits AS (
    SELECT project, commit_id, min(made_at) AS made_at FROM project_commits GROUP BY ALL
),
updates AS (
    SELECT u.*, c.made_at AS commit_made_at
    FROM index_updates u JOIN commits c ON c.project = u.project AND c.commit_id = u.commit_id
),
covered AS (
    SELECT c.project, c.commit_id, c.made_at, min(u.made_at) AS indexed_at
    FROM commits c LEFT JOIN updates u ON u.project = c.project AND u.commit_made_at >= c.made_at
    WHERE c.made_at >= $since AND c.made_at < $until GROUP BY ALL
),
by_project AS (
    SELECT project, count(*) AS commits, count(indexed_at) AS indexed, max(made_at) AS newest_commit_at,
           avg(epoch_us(indexed_at) - epoch_us(made_at)) AS lag_us, max(epoch_us(indexed_at) - epoch_us(made_at)) AS lag_us_max
    FROM covered GROUP BY project
),
work AS (
    SELECT project, arg_max(chunks, made_at) AS chunks, avg(update_ms) AS update_ms, max(update_ms) AS update_ms_max,
           sum(queries)::BIGINT AS queries, sum(query_ms) / nullif(sum(queries), 0) AS query_ms,
           max(query_ms_max) AS query_ms_max
    FROM updates WHERE commit_made_at >= $since AND commit_made_at < $until GROUP BY project
)
SELECT p.project, p.commits, p.indexed, p.newest_commit_at, w.chunks, round(w.update_ms, 1) AS update_ms_mean,
       w.update_ms_max, round(p.lag_us / 1e6, 3) AS lag_s_mean, round(p.lag_us_max / 1e6, 3) AS lag_s_max,
       coalesce(w.queries, 0) AS queries, round(w.query_ms, 1) AS query_ms_mean, w.query_ms_max
FROM by_project p LEFT JOIN work w ON w.project = p.project
ORDER BY p.newest_commit_at DESC, p.project

-- name: select_index_update
SELECT project FROM index_updates WHERE project = $project AND commit_id = $commit

-- name: insert_index_updates
INSERT INTO index_updates (project, commit_id, chunks, update_ms, queries, query_ms, query_ms_max, made_at)
SELECT unnest($project::VARCHAR[]), unnest($commit::VARCHAR[]), unnest($chunks::BIGINT[]), unnest($update_ms::BIGINT[]),
       unnest($queries::BIGINT[]), unnest($query_ms::BIGINT[]), unnest($query_ms_max::BIGINT[]), unnest($made_at::TIMESTAMPTZ[])

-- Each view adds up to the same total: every call is in each of them once.
-- name: report_spend
WITH spent AS (
    SELECT provider, model, project, user_id, input_tokens, output_tokens, cost_pusd, loss_pusd, 1 AS booked,
           0::DECIMAL(38, 0) AS pending_pusd
    FROM booked_calls WHERE booked_at >= $since AND booked_at < $until
    UNION ALL
    SELECT provider, model, project, user_id, input_tokens, output_tokens, 0, 0, 0, cost_pusd
    FROM held_calls WHERE state = 'metered' AND held_at >= $since AND held_at < $until
),
views AS (
    SELECT CASE WHEN grouping(provider) = 0 THEN 'provider' WHEN grouping(model) = 0 THEN 'model'
                WHEN grouping(project) = 0 THEN 'project' WHEN grouping(user_id) = 0 THEN 'user' ELSE 'total' END AS view,
           coalesce(provider, model, project, user_id, 'all') AS name, sum(booked)::BIGINT AS calls,
           count(*) - sum(booked)::BIGINT AS pending_calls, sum(input_tokens)::BIGINT AS input_tokens,
           sum(output_tokens)::BIGINT AS output_tokens, sum(cost_pusd) AS cost_pusd,
           sum(loss_pusd) AS of_it_losses_pusd, sum(pending_pusd) AS pending_cost_pusd
    FROM (SELECT * REPLACE (provider || '/' || model AS model, coalesce(project, '(none)') AS project) FROM spent)
    GROUP BY GROUPING SETS ((), (provider), (model), (project), (user_id))
)
SELECT * FROM views WHERE calls + pending_calls > 0
ORDER BY list_position(['total', 'provider', 'model', 'project', 'user'], view), cost_pusd DESC, name

-- name: report_consumption
WITH used AS (
    SELECT c.task_type, c.provider || '/' || c.model AS model, c.project, c.task, c.attempt, c.charge_ucredits,
           coalesce(r.amount_ucredits, 0)::DECIMAL(38, 0) AS refunded_ucredits, c.cost_pusd
    FROM booked_calls c LEFT JOIN call_refunds r ON r.call = c.call
    WHERE c.booked_at >= $since AND c.booked_at < $until
),
parts AS (
    SELECT 1 AS part_number, 'use' AS part, task_type, model, NULL AS project, NULL AS task, NULL AS attempt,
           count(*) AS calls, sum(charge_ucredits) AS charged_ucredits, sum(refunded_ucredits) AS refunded_ucredits,
           sum(cost_pusd) AS cost_pusd
    FROM used GROUP BY task_type, model
    UNION ALL
    (SELECT 2, 'most expensive step', any_value(task_type), string_agg(DISTINCT model, ' '), project, task, attempt,
            count(*), sum(charge_ucredits) AS charged, sum(refunded_ucredits), sum(cost_pusd) AS cost
     FROM used WHERE task <> '' GROUP BY project, task, attempt
     ORDER BY charged DESC, cost DESC, project, task, attempt LIMIT 20)
)
SELECT part, task_type, model, project, task, attempt, calls, charged_ucredits, refunded_ucredits, cost_pusd,
       round(100.0 * charged_ucredits / nullif((SELECT sum(charge_ucredits) FROM used), 0), 1)::DOUBLE AS share_percent
FROM parts ORDER BY part_number, charged_ucredits DESC, cost_pusd DESC, task_type, model, project, task, attempt

-- Which rows are shown is found before the rest of them is read.
-- name: report_usage
WITH newest AS (
    SELECT call FROM (SELECT call, held_at FROM call_holds WHERE held_at >= $since AND held_at < $until
                      UNION ALL
                      SELECT call, held_at FROM escrow_calls WHERE held_at >= $since AND held_at < $until)
    ORDER BY held_at DESC, call LIMIT 10000
)
SELECT call, held_at, user_id AS user, project, task_type, provider, model, pricing_id, state, outcome, input_tokens,
       output_tokens, images, cost_pusd::DECIMAL(38, 0) AS cost_pusd,
       charge_ucredits::DECIMAL(38, 0) AS charged_ucredits, response_time_ms
FROM calls WHERE call IN (FROM newest)
ORDER BY held_at DESC, call

-- name: report_profit
WITH moved AS (
    SELECT (made_at AT TIME ZONE 'UTC')::DATE AS day, debit, credit, amount
    FROM transfers WHERE unit = 'usd' AND made_at >= $since AND made_at < $until
),
days AS (
    SELECT day, coalesce(sum(amount) FILTER (credit = 'platform:income'), 0) AS purchases_pusd,
           coalesce(sum(amount) FILTER (debit = 'platform:income'), 0) AS repaid_pusd,
           coalesce(sum(amount) FILTER (debit = 'platform:cost'), 0)
               - coalesce(sum(amount) FILTER (credit = 'platform:cost'), 0) AS provider_cost_pusd,
           coalesce(sum(amount) FILTER (debit = 'platform:losses'), 0)
               - coalesce(sum(amount) FILTER (credit = 'platform:losses'), 0) AS losses_pusd
    FROM moved GROUP BY GROUPING SETS ((day), ())
)
SELECT coalesce(strftime(day, '%Y-%m-%d'), 'all') AS day, purchases_pusd, repaid_pusd, provider_cost_pusd, losses_pusd,
       purchases_pusd - repaid_pusd - provider_cost_pusd - losses_pusd AS profit_pusd,
       round(100.0 * (purchases_pusd - repaid_pusd - provider_cost_pusd - losses_pusd)::DOUBLE
             / nullif(purchases_pusd - repaid_pusd, 0)::DOUBLE, 1) AS margin_percent
FROM days ORDER BY days.day NULLS LAST

-- name: report_pricing
WITH used AS (
    SELECT c.provider, c.model, count(*) AS calls, sum(c.cost_pusd) AS cost_pusd,
           sum(c.charge_ucredits - coalesce(r.amount_ucredits, 0)) AS charged_ucredits, max(c.held_at) AS last_used_at
    FROM booked_calls c LEFT JOIN call_refunds r ON r.call = c.call
    WHERE c.booked_at >= $since AND c.booked_at < $until
    GROUP BY c.provider, c.model
),
prices AS (
    SELECT provider, model, price_from FROM prices_in_time
    WHERE is_active AND in_force_from <= $now AND in_force_until > $now
),
priced AS (
    SELECT u.provider, u.model, u.calls, u.cost_pusd, u.charged_ucredits, u.last_used_at,
           coalesce(p.price_from, everything.price_from) AS price_from
    FROM used u
    LEFT JOIN prices p ON p.provider = u.provider AND p.model = u.model
    LEFT JOIN prices everything ON everything.provider = u.provider AND everything.model = '*'
    UNION ALL
    SELECT p.provider, p.model, 0, 0, 0, NULL, p.price_from
    FROM prices p ANTI JOIN used u ON u.provider = p.provider AND u.model = p.model
    WHERE p.price_from < $stale_before
)
SELECT provider || '/' || model AS model,
       CASE WHEN price_from IS NULL THEN 'missing' WHEN price_from < $stale_before THEN 'stale' ELSE 'active' END
           AS price, price_from, last_used_at, calls, cost_pusd, charged_ucredits,
       (charged_ucredits::HUGEINT * $credit_value_pusd::HUGEINT // 1000000)::DECIMAL(38, 0) AS charged_pusd,
       round(charged_ucredits::DOUBLE * $credit_value_pusd / 1e6 / nullif(cost_pusd, 0)::DOUBLE, 4) AS realised_markup,
       round($markup_numerator / $markup_denominator, 4) AS markup_factor
FROM priced ORDER BY list_position(['missing', 'stale', 'active'], price), cost_pusd DESC, model

-- name: report_churn
WITH balances AS (
    SELECT user_id, created_at, amount_ucredits,
           sum(amount_ucredits) OVER (PARTITION BY user_id ORDER BY created_at, amount_ucredits DESC
                                      ROWS UNBOUNDED PRECEDING) AS after_ucredits
    FROM movements
),
falls AS (
    SELECT user_id, max(created_at) AS ran_out_at
    FROM balances WHERE after_ucredits < $low_ucredits AND after_ucredits - amount_ucredits >= $low_ucredits
    GROUP BY user_id
),
bought AS (
    SELECT f.user_id, count(*) AS purchases, sum(p.ucredits) AS ucredits, min(p.made_at) AS first_at
    FROM falls f JOIN purchases p ON p.user_id = f.user_id AND p.made_at > f.ran_out_at GROUP BY f.user_id
),
called AS (
    SELECT f.user_id, count(*) AS calls, max(c.held_at) AS last_at
    FROM falls f JOIN calls c ON c.user_id = f.user_id AND c.held_at > f.ran_out_at GROUP BY f.user_id
),
now_held AS (
    SELECT split_part(substr(account, 6), '/', 1) AS user_id, sum(balance) AS balance_ucredits
    FROM accounts WHERE starts_with(account, 'user:') GROUP BY ALL
),
users_now AS (
    SELECT f.user_id, f.ran_out_at, n.balance_ucredits, coalesce(b.purchases, 0) AS purchases_later,
           coalesce(b.ucredits, 0)::DECIMAL(38, 0) AS bought_later_ucredits, coalesce(c.calls, 0) AS calls_later,
           greatest(f.ran_out_at, b.first_at, c.last_at) AS last_active_at,
           (epoch_us(b.first_at) - epoch_us(f.ran_out_at)) / 86400e6 AS days_to_purchase
    FROM falls f
    JOIN now_held n ON n.user_id = f.user_id
    LEFT JOIN bought b ON b.user_id = f.user_id
    LEFT JOIN called c ON c.user_id = f.user_id
    WHERE f.ran_out_at >= $since AND f.ran_out_at < $until
)
SELECT user_id AS user, ran_out_at, balance_ucredits, purchases_later, bought_later_ucredits,
       round(days_to_purchase, 1) AS days_to_purchase, calls_later, last_active_at,
       CASE WHEN purchases_later > 0 THEN 'no: bought again'
            WHEN balance_ucredits >= $low_ucredits THEN 'no: has credits again'
            WHEN last_active_at >= $idle_since THEN 'wait: still active' ELSE 'now' END AS offer
FROM users_now ORDER BY ran_out_at DESC, user

-- name: put_feedback
INSERT INTO project_feedback (project, user_id, score, made_at, text_sealed)
VALUES ($project, $user_id, $score, $made_at, $text_sealed)
ON CONFLICT (project) DO UPDATE
SET score = excluded.score, made_at = excluded.made_at, text_sealed = excluded.text_sealed

-- name: feedback
SELECT project, user_id, score, text_sealed, epoch_us(made_at) FROM project_feedback
ORDER BY made_at DESC, project LIMIT 200

-- name: owner_of_entity
SELECT owner FROM entities WHERE entity = $entity

-- Exports ------------------------------------------------------------------------------------------------------

-- (Takes a statement's text.)
-- name: keep_report
CREATE OR REPLACE TEMP TABLE report AS $statement

-- name: report_columns
SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'report' AND database_name = 'temp'
ORDER BY column_index

-- (Takes texts.)
-- name: write_csv
COPY ($statement) TO $path (FORMAT csv, HEADER)

-- (Takes texts.)
-- name: write_parquet
COPY ($statement) TO $path (FORMAT parquet, COMPRESSION zstd)

-- Alerts -------------------------------------------------------------------------------------------------------

-- What providers were owed more in the last hour, and in the seven hours a day, two days ... before it together.
-- name: hourly_spend
WITH owed AS (
    SELECT (epoch_us($now::TIMESTAMPTZ) - epoch_us(made_at)) AS ago_us,
           CASE WHEN starts_with(credit, 'provider:') THEN amount ELSE -amount END AS amount
    FROM transfers
    WHERE made_at > $now - INTERVAL 169 HOUR AND made_at <= $now
      AND unit = 'usd' AND (starts_with(credit, 'provider:') OR starts_with(debit, 'provider:'))
)
SELECT coalesce(sum(amount) FILTER (ago_us < 3600000000), 0)::HUGEINT,
       coalesce(sum(amount) FILTER (ago_us >= 86400000000), 0)::HUGEINT
FROM owed WHERE ago_us % 86400000000 < 3600000000

-- name: unpriced_models
SELECT provider, model, count(*) FROM (
    SELECT provider, model FROM call_holds WHERE held_at > $hour_ago AND held_at <= $now
    UNION ALL
    SELECT provider, model FROM escrow_calls WHERE settled_at > $hour_ago AND settled_at <= $now
) used
ANTI JOIN (SELECT provider, model FROM prices_in_time
           WHERE is_active AND in_force_from <= $now AND in_force_until > $now) p
       ON p.provider = used.provider AND p.model IN (used.model, '*')
GROUP BY provider, model ORDER BY provider, model

-- name: failed_projects
SELECT count(DISTINCT project) FROM project_statuses
WHERE status = 'failed' AND made_at > $hour_ago AND made_at <= $now

-- Stars that were taken for nothing, and not given back.
-- name: failed_star_payments
SELECT p.charge_id, p.stars FROM star_payments p ANTI JOIN star_refunds r ON r.charge_id = p.charge_id
WHERE p.failure <> '' ORDER BY p.booked_at, p.charge_id LIMIT 100

-- name: late_star_refunds
SELECT p.charge_id, p.stars FROM star_refunds r JOIN star_payments p ON p.charge_id = r.charge_id
WHERE r.told_at IS NULL AND r.made_at <= $before ORDER BY r.made_at, r.charge_id LIMIT 100

-- Projects that are not over, and for how long the oldest commit waits that their index did not come to.
-- name: index_lags
WITH commits AS (
    SELECT c.project, c.commit_id, min(c.made_at) AS made_at FROM project_commits c
    JOIN project_facts p ON p.project = c.project AND p.ended_at IS NULL GROUP BY ALL
),
reached AS (
    SELECT c.project, max(c.made_at) AS made_at
    FROM index_updates u JOIN commits c ON c.project = u.project AND c.commit_id = u.commit_id GROUP BY c.project
)
SELECT c.project, (epoch_us($now::TIMESTAMPTZ) - epoch_us(min(c.made_at))) // 1000000
FROM commits c LEFT JOIN reached r ON r.project = c.project
WHERE r.made_at IS NULL OR c.made_at > r.made_at
GROUP BY c.project ORDER BY c.project

-- The newest of each condition.
-- name: last_alerts
SELECT condition, arg_max(alert, raised_at), epoch_us(max(raised_at)), arg_max(cleared_at IS NULL, raised_at)
FROM alerts GROUP BY condition

-- name: add_alert
INSERT INTO alerts (alert, condition, text, raised_at, cleared_at)
VALUES ($alert, $condition, $text, $raised_at, NULL) ON CONFLICT DO NOTHING

-- name: clear_alert
UPDATE alerts SET cleared_at = $cleared_at WHERE alert = $alert AND cleared_at IS NULL

-- name: alerts
SELECT alert, condition, text, epoch_us(raised_at), epoch_us(cleared_at) FROM alerts
WHERE cleared_at IS NULL OR NOT $open_only
ORDER BY cleared_at IS NULL DESC, raised_at DESC, alert LIMIT $limit
