-- Every statement the product makes, each under its name. `insert_*` and `update_*` take one list a column: a group
-- of rows is one statement. Times are read as microseconds since 1970 UTC, amounts as HUGEINT: whole numbers both.

-- Entities =====================================================================================================

-- name: select_partition
SELECT partition, epoch, host, incarnation FROM partitions WHERE partition = $key

-- name: insert_partitions
INSERT INTO partitions (partition, epoch, host, incarnation)
SELECT unnest($partition::VARCHAR[]), unnest($epoch::BIGINT[]), unnest($host::VARCHAR[]), unnest($incarnation::VARCHAR[])

-- name: update_partitions
UPDATE partitions SET epoch = s.epoch, host = s.host, incarnation = s.incarnation
FROM (SELECT unnest($partition::VARCHAR[]) AS partition, unnest($epoch::BIGINT[]) AS epoch,
             unnest($host::VARCHAR[]) AS host, unnest($incarnation::VARCHAR[]) AS incarnation) s
WHERE partitions.partition = s.partition

-- name: select_last_seq
SELECT last_seq FROM entities WHERE entity = $key

-- name: insert_entities
INSERT INTO entities (entity, kind, owner, last_seq, open, head, updated_at)
SELECT unnest($entity::VARCHAR[]), unnest($kind::VARCHAR[]), unnest($owner::VARCHAR[]), unnest($last_seq::BIGINT[]),
       unnest($open::BOOLEAN[]), unnest($head::BLOB[]), unnest($updated_at::TIMESTAMPTZ[])

-- name: update_entities
UPDATE entities SET owner = s.owner, last_seq = s.last_seq, open = s.open, head = s.head, updated_at = s.updated_at
FROM (SELECT unnest($entity::VARCHAR[]) AS entity, unnest($owner::VARCHAR[]) AS owner,
             unnest($last_seq::BIGINT[]) AS last_seq, unnest($open::BOOLEAN[]) AS open,
             unnest($head::BLOB[]) AS head, unnest($updated_at::TIMESTAMPTZ[]) AS updated_at) s
WHERE entities.entity = s.entity

-- name: insert_events
INSERT INTO events (event_sha256, entity, seq, epoch, type, version, payload, made_at)
SELECT unnest($event_sha256::BLOB[]), unnest($entity::VARCHAR[]), unnest($seq::BIGINT[]), unnest($epoch::BIGINT[]),
       unnest($type::VARCHAR[]), unnest($version::BIGINT[]), unnest($payload::BLOB[]), unnest($made_at::TIMESTAMPTZ[])

-- name: events_of_entity
SELECT seq, epoch, type, version, payload, epoch_us(made_at)
FROM events WHERE entity = $entity AND seq > $after_seq ORDER BY seq

-- name: head_of_entity
SELECT entity, owner, last_seq, open, head, epoch_us(updated_at) FROM entities WHERE entity = $entity

-- name: heads_of_kind
SELECT entity, owner, last_seq, open, head, epoch_us(updated_at) FROM entities
WHERE kind = $kind AND ($owner::VARCHAR IS NULL OR owner = $owner)
ORDER BY updated_at DESC, entity

-- name: open_entities
SELECT entity FROM entities WHERE open AND list_contains($kinds::VARCHAR[], kind) ORDER BY entity

-- People and what they may use =================================================================================

-- name: select_user
SELECT user_id, is_admin FROM users WHERE user_id = $key

-- name: insert_users
INSERT INTO users (user_id, is_admin, created_at)
SELECT unnest($user_id::VARCHAR[]), unnest($is_admin::BOOLEAN[]), now()

-- name: update_users
UPDATE users SET is_admin = s.is_admin
FROM (SELECT unnest($user_id::VARCHAR[]) AS user_id, unnest($is_admin::BOOLEAN[]) AS is_admin) s
WHERE users.user_id = s.user_id

-- name: select_grant
SELECT identity_sha256 FROM grants WHERE identity_sha256 = $key

-- name: insert_grants
INSERT INTO grants (identity_sha256, granted_at)
SELECT unnest($identity_sha256::VARCHAR[]), unnest($granted_at::TIMESTAMPTZ[])

-- name: add_token
INSERT INTO tokens (token_sha256, user_id, kind, label, run, expires_at, revoked_at, created_at)
VALUES ($token_sha256, $user_id, $kind, $label, $run, $expires_at, NULL, $created_at)
ON CONFLICT DO NOTHING

-- name: revoke_token
UPDATE tokens SET revoked_at = $revoked_at WHERE token_sha256 = $token_sha256 AND revoked_at IS NULL

-- A task's token is good only while its run is open.
-- name: identity_of_token
SELECT t.user_id, coalesce(u.is_admin, false), t.kind, t.run
FROM tokens t
LEFT JOIN users u ON u.user_id = t.user_id
LEFT JOIN runs r ON r.run = t.run
LEFT JOIN run_ends e ON e.run = t.run
WHERE t.token_sha256 = $token_sha256
  AND t.revoked_at IS NULL
  AND (t.expires_at IS NULL OR t.expires_at > $at_time)
  AND (t.kind = 'user' OR (r.run IS NOT NULL AND e.run IS NULL))

-- name: deactivate_keys
UPDATE api_keys SET is_active = false WHERE is_active

-- name: add_key
INSERT INTO api_keys (key_id, provider, label, sealed, is_active, created_at)
VALUES ($key_id, $provider, $label, $sealed, true, $created_at)
ON CONFLICT DO NOTHING

-- name: activate_key
UPDATE api_keys SET label = $label, sealed = $sealed, is_active = true
WHERE provider = $provider AND key_id = $key_id

-- name: keys_of_provider
SELECT key_id, provider, label, sealed FROM api_keys WHERE provider = $provider AND is_active
ORDER BY created_at, key_id

-- name: select_price
SELECT pricing_id, provider, model, input_udollars_per_mtok, output_udollars_per_mtok
FROM model_pricing WHERE pricing_id = $key

-- name: insert_model_pricing
INSERT INTO model_pricing (pricing_id, provider, model, input_udollars_per_mtok, output_udollars_per_mtok,
                           is_active, effective_from)
SELECT unnest($pricing_id::VARCHAR[]), unnest($provider::VARCHAR[]), unnest($model::VARCHAR[]),
       unnest($input_udollars_per_mtok::BIGINT[]), unnest($output_udollars_per_mtok::BIGINT[]), true, now()

-- name: activate_prices
UPDATE model_pricing SET is_active = list_contains($pricing_ids::VARCHAR[], pricing_id)

-- Money ========================================================================================================

-- name: select_account
SELECT account, unit, balance::HUGEINT FROM accounts WHERE account = $key

-- name: insert_accounts
INSERT INTO accounts (account, unit, balance)
SELECT unnest($account::VARCHAR[]), unnest($unit::VARCHAR[]), unnest($balance::DECIMAL(38, 0)[])

-- name: update_accounts
UPDATE accounts SET balance = s.balance
FROM (SELECT unnest($account::VARCHAR[]) AS account, unnest($balance::DECIMAL(38, 0)[]) AS balance) s
WHERE accounts.account = s.account

-- name: insert_transfers
INSERT INTO transfers (transfer_id, unit, debit, credit, amount, reason, call, user_id, project, made_at)
SELECT unnest($transfer_id::VARCHAR[]), unnest($unit::VARCHAR[]), unnest($debit::VARCHAR[]),
       unnest($credit::VARCHAR[]), unnest($amount::DECIMAL(38, 0)[]), unnest($reason::VARCHAR[]),
       unnest($call::VARCHAR[]), unnest($user::VARCHAR[]), unnest($project::VARCHAR[]),
       unnest($made_at::TIMESTAMPTZ[])

-- name: select_budget
SELECT project, ceiling_ucredits::HUGEINT, committed_ucredits::HUGEINT FROM budgets WHERE project = $key

-- name: insert_budgets
INSERT INTO budgets (project, ceiling_ucredits, committed_ucredits)
SELECT unnest($project::VARCHAR[]), unnest($ceiling_ucredits::DECIMAL(38, 0)[]),
       unnest($committed_ucredits::DECIMAL(38, 0)[])

-- name: update_budgets
UPDATE budgets SET ceiling_ucredits = s.ceiling_ucredits, committed_ucredits = s.committed_ucredits
FROM (SELECT unnest($project::VARCHAR[]) AS project, unnest($ceiling_ucredits::DECIMAL(38, 0)[]) AS ceiling_ucredits,
             unnest($committed_ucredits::DECIMAL(38, 0)[]) AS committed_ucredits) s
WHERE budgets.project = s.project

-- name: select_run
SELECT r.run, r.user_id, r.project, r.task, r.attempt, coalesce(e.state, 'open')
FROM runs r LEFT JOIN run_ends e ON e.run = r.run WHERE r.run = $key

-- name: insert_runs
INSERT INTO runs (run, user_id, project, task, attempt, begun_at)
SELECT unnest($run::VARCHAR[]), unnest($user::VARCHAR[]), unnest($project::VARCHAR[]), unnest($task::VARCHAR[]),
       unnest($attempt::BIGINT[]), unnest($begun_at::TIMESTAMPTZ[])

-- name: insert_run_ends
INSERT INTO run_ends (run, state, ended_at)
SELECT unnest($run::VARCHAR[]), unnest($state::VARCHAR[]), unnest($ended_at::TIMESTAMPTZ[])

-- name: select_call
SELECT call, user_id, run, project, task, attempt, task_type, provider, model, pricing_id,
       input_udollars_per_mtok, output_udollars_per_mtok, input_tokens_max, output_tokens_max,
       bound_pusd::HUGEINT, hold_ucredits::HUGEINT, state, outcome, input_tokens, output_tokens,
       cost_pusd::HUGEINT, charge_ucredits::HUGEINT, epoch_us(held_at)
FROM calls WHERE call = $key

-- name: calls_of_project
SELECT call, user_id, run, project, task, attempt, task_type, provider, model, pricing_id,
       input_udollars_per_mtok, output_udollars_per_mtok, input_tokens_max, output_tokens_max,
       bound_pusd::HUGEINT, hold_ucredits::HUGEINT, state, outcome, input_tokens, output_tokens,
       cost_pusd::HUGEINT, charge_ucredits::HUGEINT, epoch_us(held_at)
FROM calls WHERE project = $project
ORDER BY held_at, call

-- name: open_calls_of_run
SELECT h.call FROM call_holds h LEFT JOIN call_ends e ON e.call = h.call
WHERE h.run = $key AND e.call IS NULL

-- name: stale_calls_without_run
SELECT call FROM calls WHERE run IS NULL AND state = 'held' AND held_at < $older_than ORDER BY call

-- name: insert_call_holds
INSERT INTO call_holds (call, user_id, run, project, task, attempt, task_type, provider, model, pricing_id,
                        input_udollars_per_mtok, output_udollars_per_mtok, input_tokens_max, output_tokens_max,
                        bound_pusd, hold_ucredits, held_at)
SELECT unnest($call::VARCHAR[]), unnest($user::VARCHAR[]), unnest($run::VARCHAR[]), unnest($project::VARCHAR[]),
       unnest($task::VARCHAR[]), unnest($attempt::BIGINT[]), unnest($task_type::VARCHAR[]),
       unnest($provider::VARCHAR[]), unnest($model::VARCHAR[]), unnest($pricing_id::VARCHAR[]),
       unnest($input_udollars_per_mtok::BIGINT[]), unnest($output_udollars_per_mtok::BIGINT[]),
       unnest($input_tokens_max::BIGINT[]), unnest($output_tokens_max::BIGINT[]),
       unnest($bound_pusd::DECIMAL(38, 0)[]), unnest($hold_ucredits::DECIMAL(38, 0)[]),
       unnest($held_at::TIMESTAMPTZ[])

-- name: insert_call_usages
INSERT INTO call_usages (call, input_tokens, output_tokens, cost_pusd, charge_ucredits, provider_failed,
                         response_time_ms, key_id, metered_at)
SELECT unnest($call::VARCHAR[]), unnest($input_tokens::BIGINT[]), unnest($output_tokens::BIGINT[]),
       unnest($cost_pusd::DECIMAL(38, 0)[]), unnest($charge_ucredits::DECIMAL(38, 0)[]),
       unnest($provider_failed::BOOLEAN[]), unnest($response_time_ms::BIGINT[]), unnest($key_id::VARCHAR[]),
       unnest($metered_at::TIMESTAMPTZ[])

-- name: insert_call_ends
INSERT INTO call_ends (call, state, ended_at)
SELECT unnest($call::VARCHAR[]), unnest($state::VARCHAR[]), unnest($ended_at::TIMESTAMPTZ[])

-- Everything that does not add up, as (subject, text). Each part names what it compares with what.
-- name: mismatches
WITH legs AS (
    SELECT credit AS account, unit, amount::HUGEINT AS amount, call, made_at FROM transfers
    UNION ALL
    SELECT debit, unit, -amount::HUGEINT, call, made_at FROM transfers
),
derived AS (
    SELECT account, unit, sum(amount)::HUGEINT AS balance FROM legs GROUP BY ALL
),
open_holds AS (
    SELECT 'user:' || user_id || '/held' AS account, sum(charge_ucredits)::HUGEINT AS held
    FROM calls WHERE state IN ('held', 'metered') GROUP BY ALL
),
budget_uses AS (
    SELECT project, sum(charge_ucredits)::HUGEINT AS committed
    FROM calls WHERE project IS NOT NULL GROUP BY project
),
posted AS (
    SELECT call,
           sum(CASE WHEN account = 'platform:revenue' THEN amount ELSE 0 END) AS charged,
           sum(CASE WHEN unit = 'credit' AND account LIKE 'user:%/held' THEN amount ELSE 0 END) AS held,
           sum(CASE WHEN account LIKE 'provider:%' THEN amount ELSE 0 END) AS cost
    FROM legs WHERE call IS NOT NULL GROUP BY call
)
SELECT unit AS subject, 'balances do not sum to zero: ' || sum(balance)::VARCHAR AS text
FROM accounts GROUP BY unit HAVING sum(balance) <> 0
UNION ALL
SELECT coalesce(a.account, d.account),
       'balance ' || coalesce(a.balance::VARCHAR, 'missing') || ', transfers ' || coalesce(d.balance::VARCHAR, 'none')
FROM accounts a FULL JOIN derived d ON a.account = d.account AND a.unit = d.unit
WHERE coalesce(a.balance::HUGEINT, 0) <> coalesce(d.balance, 0) OR a.account IS NULL
UNION ALL
SELECT account, 'negative balance ' || balance::VARCHAR
FROM accounts WHERE account LIKE 'user:%' AND balance < 0
UNION ALL
SELECT coalesce(a.account, o.account),
       'held ' || coalesce(a.balance, 0)::VARCHAR || ', open calls ' || coalesce(o.held, 0)::VARCHAR
FROM (SELECT * FROM accounts WHERE account LIKE 'user:%/held') a FULL JOIN open_holds o ON a.account = o.account
WHERE coalesce(a.balance::HUGEINT, 0) <> coalesce(o.held, 0)
UNION ALL
SELECT coalesce(b.project, u.project),
       'committed ' || coalesce(b.committed_ucredits, 0)::VARCHAR || ', calls ' || coalesce(u.committed, 0)::VARCHAR
FROM budgets b FULL JOIN budget_uses u ON b.project = u.project
WHERE coalesce(b.committed_ucredits::HUGEINT, 0) <> coalesce(u.committed, 0)
UNION ALL
SELECT coalesce(c.call, p.call), 'the transfers of this call are not what its receipt says'
FROM calls c FULL JOIN posted p ON c.call = p.call
WHERE c.call IS NULL
   OR coalesce(p.charged, 0) <> CASE c.state WHEN 'settled' THEN c.charge_ucredits ELSE 0 END
   OR coalesce(p.held, 0) <> CASE WHEN c.state IN ('held', 'metered') THEN c.charge_ucredits ELSE 0 END
   OR coalesce(p.cost, 0) <> CASE WHEN c.state IN ('settled', 'lost') THEN c.cost_pusd ELSE 0 END
UNION ALL
SELECT c.call, 'still ' || c.state || ' although its run is ' || e.state
FROM calls c JOIN run_ends e ON e.run = c.run WHERE c.state IN ('held', 'metered')
ORDER BY subject, text

-- The database itself ==========================================================================================

-- name: cluster
SELECT cluster_id, key_check FROM cluster

-- name: add_cluster
INSERT INTO cluster (cluster_id, key_check, created_at) VALUES ($cluster_id, $key_check, now())

-- name: make_migrations
CREATE TABLE IF NOT EXISTS migrations (name VARCHAR PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL)

-- name: applied_migrations
SELECT name FROM migrations

-- name: add_migration
INSERT INTO migrations (name, applied_at) VALUES ($name, now())

-- name: table_names
SELECT table_name FROM duckdb_tables() WHERE NOT internal
