-- Every statement the product makes, each under its name. `insert_*` and `update_*` take one list a column: a group
-- of rows is one statement. Times are read as microseconds since 1970 UTC, amounts as HUGEINT: whole numbers both.

-- Entities =====================================================================================================

-- name: select_partition
SELECT partition, epoch, host, incarnation FROM partitions WHERE partition = $key

-- name: select_partitions
SELECT partition, partition, epoch, host, incarnation FROM partitions
WHERE partition IN (SELECT unnest($keys::VARCHAR[]))

-- name: insert_partitions
INSERT INTO partitions (partition, epoch, host, incarnation)
SELECT unnest($partition::VARCHAR[]), unnest($epoch::BIGINT[]), unnest($host::VARCHAR[]), unnest($incarnation::VARCHAR[])

-- name: update_partitions
UPDATE partitions SET epoch = s.epoch, host = s.host, incarnation = s.incarnation
FROM (SELECT unnest($partition::VARCHAR[]) AS partition, unnest($epoch::BIGINT[]) AS epoch,
             unnest($host::VARCHAR[]) AS host, unnest($incarnation::VARCHAR[]) AS incarnation) s
WHERE partitions.partition = s.partition

-- name: ownerships
SELECT partition::BIGINT AS number, epoch, host, incarnation FROM partitions ORDER BY number

-- name: select_entity
SELECT number, last_seq, owner, open, tail FROM entities WHERE entity = $key

-- name: select_entities
SELECT entity, number, last_seq, owner, open, tail FROM entities WHERE entity IN (SELECT unnest($keys::VARCHAR[]))

-- name: select_next
SELECT CASE $key WHEN 'entity' THEN (SELECT coalesce(max(number) + 1, 0) FROM entities)
                 WHEN 'entry' THEN (SELECT coalesce(max(position) + 1, 0) FROM entries) END

-- name: insert_entities
INSERT INTO entities (entity, number, kind, owner, last_seq, open, head, updated_at, first_position, tail)
SELECT unnest($entity::VARCHAR[]), unnest($number::BIGINT[]), unnest($kind::VARCHAR[]), unnest($owner::VARCHAR[]),
       unnest($last_seq::BIGINT[]), unnest($open::BOOLEAN[]), unnest($head::BLOB[]),
       unnest($updated_at::TIMESTAMPTZ[]), unnest($first_position::BIGINT[]), unnest($tail::VARCHAR[])

-- name: update_entities
UPDATE entities SET last_seq = s.last_seq, head = s.head, updated_at = s.updated_at, tail = s.tail
FROM (SELECT unnest($number::BIGINT[]) AS number, unnest($last_seq::BIGINT[]) AS last_seq,
             unnest($head::BLOB[]) AS head, unnest($updated_at::TIMESTAMPTZ[]) AS updated_at,
             unnest($tail::VARCHAR[]) AS tail) s
WHERE entities.number = s.number

-- name: update_standings
UPDATE entities SET owner = s.owner, open = s.open
FROM (SELECT unnest($number::BIGINT[]) AS number, unnest($owner::VARCHAR[]) AS owner,
             unnest($open::BOOLEAN[]) AS open) s
WHERE entities.number = s.number

-- name: insert_entries
INSERT INTO entries (position, entity, seq, epoch, type, version, drops, payload, made_at)
SELECT unnest($position::BIGINT[]), unnest($entity::VARCHAR[]), unnest($seq::BIGINT[]), unnest($epoch::BIGINT[]),
       unnest($type::VARCHAR[]), unnest($version::BIGINT[]), unnest($drops::BOOLEAN[]), unnest($payload::BLOB[]),
       unnest($made_at::TIMESTAMPTZ[])

-- name: insert_project_statuses
INSERT INTO project_statuses (project, user_id, seq, status, made_at)
SELECT unnest($project::VARCHAR[]), unnest($user_id::VARCHAR[]), unnest($seq::BIGINT[]), unnest($status::VARCHAR[]),
       unnest($made_at::TIMESTAMPTZ[])

-- name: insert_verification_cycles
INSERT INTO verification_cycles (project, phase, cycle, verdict, items_checked, findings, duration_ms, made_at)
SELECT unnest($project::VARCHAR[]), unnest($phase::BIGINT[]), unnest($cycle::BIGINT[]), unnest($verdict::VARCHAR[]),
       unnest($items_checked::BIGINT[]), unnest($findings::BIGINT[]), unnest($duration_ms::BIGINT[]),
       unnest($made_at::TIMESTAMPTZ[])

-- name: insert_task_steps
INSERT INTO task_steps (project, task, attempt, step, made_at)
SELECT unnest($project::VARCHAR[]), unnest($task::VARCHAR[]), unnest($attempt::BIGINT[]), unnest($step::VARCHAR[]),
       unnest($made_at::TIMESTAMPTZ[])

-- name: insert_project_commits
INSERT INTO project_commits (project, commit_id, made_at)
SELECT unnest($project::VARCHAR[]), unnest($commit_id::VARCHAR[]), unnest($made_at::TIMESTAMPTZ[])

-- name: remove_reminders
DELETE FROM reminders
USING (SELECT unnest($entity::VARCHAR[]) AS entity, unnest($name::VARCHAR[]) AS name) s
WHERE reminders.entity = s.entity AND reminders.name = s.name

-- name: insert_reminders
INSERT INTO reminders (entity, name, partition, due_at, data)
SELECT unnest($entity::VARCHAR[]), unnest($name::VARCHAR[]), unnest($partition::BIGINT[]),
       unnest($due_at::TIMESTAMPTZ[]), unnest($data::BLOB[])

-- name: due_reminders
SELECT entity, name, epoch_us(due_at), data FROM reminders
WHERE due_at <= $now AND partition IN (SELECT unnest($partitions::BIGINT[]))
ORDER BY due_at, entity, name LIMIT $limit

-- name: place_of_entity
SELECT entity, owner, last_seq, open, head, epoch_us(updated_at), first_position, tail
FROM entities WHERE entity = $entity

-- name: places_of_entities
SELECT entity, owner, last_seq, open, head, epoch_us(updated_at), first_position, tail
FROM entities WHERE entity IN (SELECT unnest($entities::VARCHAR[]))

-- name: entries_at
SELECT entity, position, seq, epoch, type, version, payload, epoch_us(made_at)
FROM entries WHERE position IN (SELECT unnest($positions::BIGINT[]))

-- name: entries_of_entities
SELECT entity, position, seq, epoch, type, version, payload, epoch_us(made_at)
FROM entries WHERE position >= $first_position AND entity IN (SELECT unnest($entities::VARCHAR[]))

-- name: events_of_entity
SELECT entity, position, seq, epoch, type, version, payload, epoch_us(made_at)
FROM entries
WHERE position >= $first_position AND entity = $entity AND type IS NOT NULL AND seq > $after_seq
ORDER BY seq LIMIT $limit

-- name: head_of_entity
SELECT entity, owner, last_seq, open, head, epoch_us(updated_at) FROM entities WHERE entity = $entity

-- name: heads_of_kind
SELECT entity, owner, last_seq, open, head, epoch_us(updated_at) FROM entities
WHERE kind = $kind AND ($owner::VARCHAR IS NULL OR owner = $owner)
ORDER BY updated_at DESC, entity

-- name: open_entities
SELECT entity FROM entities WHERE open AND list_contains($kinds::VARCHAR[], kind) ORDER BY entity

-- name: journal_counts
SELECT (SELECT count(*) FROM entities), (SELECT count(*) FROM entries WHERE type IS NOT NULL)

-- Compaction ---------------------------------------------------------------------------------------------------

-- name: make_bounds
CREATE OR REPLACE TEMP TABLE bounds AS
SELECT e.entity, coalesce(TRY_CAST(regexp_extract(e.tail, '^s([0-9]+)', 1) AS BIGINT), 0) AS snapshot_position,
       coalesce(d.seq, 0) AS drop_seq
FROM entities e
LEFT JOIN (SELECT entity, max(seq) AS seq FROM entries WHERE drops AND type IS NULL GROUP BY entity) d
       ON d.entity = e.entity
WHERE snapshot_position > 0 OR drop_seq > 0

-- name: position_range
SELECT coalesce(min(position), 0), coalesce(max(position) + 1, 0) FROM entries

-- name: drop_events
DELETE FROM entries
USING bounds
WHERE bounds.entity = entries.entity AND position >= $from_position AND position < $to_position
  AND type IS NOT NULL AND seq <= bounds.drop_seq

-- Those that a newer one replaced. The one that let events go is kept: it is why they may be missing.
-- name: drop_snapshots
DELETE FROM entries
USING bounds
WHERE bounds.entity = entries.entity AND position >= $from_position AND position < $to_position
  AND type IS NULL AND position < bounds.snapshot_position AND NOT (drops AND seq = bounds.drop_seq)

-- A project that is purged, once the snapshot that lets its events go is there.
-- name: projects_to_purge
SELECT DISTINCT s.project, s.user_id FROM project_statuses s
WHERE s.status = 'purged' AND s.project NOT IN (SELECT project FROM purge_log)
  AND EXISTS (SELECT 1 FROM entries e WHERE e.entity = 'project:' || s.project AND e.type IS NULL AND e.drops)
ORDER BY s.project

-- name: drop_events_of_entity
DELETE FROM entries
WHERE entity = $entity AND type IS NOT NULL
  AND seq <= (SELECT coalesce(max(seq), 0) FROM entries WHERE entity = $entity AND type IS NULL AND drops)

-- name: drop_snapshots_of_entity
DELETE FROM entries
WHERE entity = $entity AND type IS NULL
  AND seq < (SELECT coalesce(max(seq), 0) FROM entries WHERE entity = $entity AND type IS NULL AND drops)

-- name: note_purged
INSERT INTO purge_log (project, user_id, files, purged_at) VALUES ($project, $user_id, $files, $purged_at)

-- Checking -----------------------------------------------------------------------------------------------------

-- name: entry_count
SELECT count(*) FROM entries

-- name: entries_of_share
SELECT entity, position, seq, epoch, type, version, drops, payload
FROM entries WHERE hash(entity) % $shares = $share
ORDER BY entity, position

-- name: entities_of_share
SELECT entity, kind, last_seq, head, first_position, tail FROM entities WHERE hash(entity) % $shares = $share

-- name: reminders_with_entities
SELECT r.entity, r.name, r.partition, r.data, e.entity IS NOT NULL, count(*) OVER (PARTITION BY r.entity, r.name)
FROM reminders r LEFT JOIN entities e ON e.entity = r.entity
ORDER BY r.entity, r.name

-- People and what they may use =================================================================================

-- name: select_user
SELECT user_id, is_admin, role, invited_by FROM users WHERE user_id = $key

-- name: insert_users
INSERT INTO users (user_id, is_admin, role, invited_by, created_at)
SELECT unnest($user_id::VARCHAR[]), unnest($is_admin::BOOLEAN[]), unnest($role::VARCHAR[]),
       unnest($invited_by::VARCHAR[]), now()

-- name: update_users
UPDATE users SET is_admin = s.is_admin, role = s.role, invited_by = s.invited_by
FROM (SELECT unnest($user_id::VARCHAR[]) AS user_id, unnest($is_admin::BOOLEAN[]) AS is_admin,
             unnest($role::VARCHAR[]) AS role, unnest($invited_by::VARCHAR[]) AS invited_by) s
WHERE users.user_id = s.user_id

-- Accounts -----------------------------------------------------------------------------------------------------

-- name: select_user_account
SELECT user_id, telegram_key, profile, authorized, verified, banned, logins FROM user_accounts WHERE user_id = $key

-- name: user_of_telegram
SELECT user_id FROM user_accounts WHERE telegram_key = $key

-- name: insert_user_accounts
INSERT INTO user_accounts (user_id, telegram_key, profile, authorized, verified, banned, logins)
SELECT unnest($user_id::VARCHAR[]), unnest($telegram_key::VARCHAR[]), unnest($profile::BLOB[]),
       unnest($authorized::BOOLEAN[]), unnest($verified::BOOLEAN[]), unnest($banned::BOOLEAN[]),
       unnest($logins::BIGINT[])

-- name: update_user_accounts
UPDATE user_accounts SET profile = s.profile, authorized = s.authorized, verified = s.verified, banned = s.banned,
                    logins = s.logins
FROM (SELECT unnest($user_id::VARCHAR[]) AS user_id, unnest($profile::BLOB[]) AS profile,
             unnest($authorized::BOOLEAN[]) AS authorized, unnest($verified::BOOLEAN[]) AS verified,
             unnest($banned::BOOLEAN[]) AS banned, unnest($logins::BIGINT[]) AS logins) s
WHERE user_accounts.user_id = s.user_id

-- name: account_lines
SELECT u.user_id, u.is_admin, u.role, a.telegram_key, a.profile, coalesce(a.authorized, false),
       coalesce(a.verified, false), coalesce(a.banned, false), coalesce(a.logins, 0), epoch_us(s.expires_at)
FROM users u LEFT JOIN user_accounts a ON a.user_id = u.user_id LEFT JOIN subscriptions s ON s.user_id = u.user_id
WHERE ($user_id::VARCHAR IS NULL OR u.user_id = $user_id)
  AND (NOT $admins OR (u.is_admin AND a.telegram_key IS NOT NULL AND NOT a.banned))
  AND u.user_id NOT IN (SELECT pseudonym FROM erasures)
ORDER BY u.created_at, u.user_id LIMIT $limit OFFSET $offset

-- name: admins_but
SELECT count(*) FROM users WHERE is_admin AND user_id <> $local

-- name: select_invite
SELECT code_hash, role, uses, uses_left, revoked, epoch_us(expires_at), created_by, epoch_us(created_at)
FROM invite_codes WHERE code_hash = $key

-- name: insert_invite_codes
INSERT INTO invite_codes (code_hash, role, uses, uses_left, revoked, expires_at, created_by, created_at)
SELECT unnest($code_hash::VARCHAR[]), unnest($role::VARCHAR[]), unnest($uses::BIGINT[]), unnest($uses_left::BIGINT[]),
       unnest($revoked::BOOLEAN[]), unnest($expires_at::TIMESTAMPTZ[]), unnest($created_by::VARCHAR[]),
       unnest($created_at::TIMESTAMPTZ[])

-- name: update_invite_codes
UPDATE invite_codes SET uses_left = s.uses_left, revoked = s.revoked
FROM (SELECT unnest($code_hash::VARCHAR[]) AS code_hash, unnest($uses_left::BIGINT[]) AS uses_left,
             unnest($revoked::BOOLEAN[]) AS revoked) s
WHERE invite_codes.code_hash = s.code_hash

-- name: insert_invite_uses
INSERT INTO invite_uses (code_hash, user_id, used_at)
SELECT unnest($code_hash::VARCHAR[]), unnest($user_id::VARCHAR[]), unnest($used_at::TIMESTAMPTZ[])

-- name: select_invite_use
SELECT user_id FROM invite_uses WHERE code_hash || '/' || user_id = $key

-- name: invites
SELECT i.code_hash, i.role, i.uses, i.uses_left, i.revoked, epoch_us(i.expires_at), i.created_by,
       epoch_us(i.created_at), list(u.user_id ORDER BY u.used_at, u.user_id) FILTER (u.user_id IS NOT NULL)
FROM invite_codes i LEFT JOIN invite_uses u ON u.code_hash = i.code_hash
GROUP BY ALL ORDER BY epoch_us(i.created_at) DESC, i.code_hash

-- name: invites_named
SELECT code_hash FROM invite_codes WHERE starts_with(code_hash, $invite_id)

-- name: wrong_attempts
SELECT guard, address, epoch_us(made_at) FROM wrong_attempts WHERE user_id = $key ORDER BY made_at DESC LIMIT 20

-- name: insert_wrong_attempts
INSERT INTO wrong_attempts (user_id, guard, address, made_at)
SELECT unnest($user_id::VARCHAR[]), unnest($guard::VARCHAR[]), unnest($address::VARCHAR[]),
       unnest($made_at::TIMESTAMPTZ[])

-- name: drop_wrong_attempts
DELETE FROM wrong_attempts WHERE made_at < $before

-- name: revoke_login
INSERT INTO revoked_logins (login, user_id, expires_at) VALUES ($login, $user_id, $expires_at) ON CONFLICT DO NOTHING

-- name: drop_revoked_logins
DELETE FROM revoked_logins WHERE expires_at < $before

-- name: identity_of_login
SELECT u.is_admin, u.role, u.user_id, a.profile, a.authorized, a.banned, epoch_us(s.expires_at)
FROM users u JOIN user_accounts a ON a.user_id = u.user_id
LEFT JOIN subscriptions s ON s.user_id = u.user_id
WHERE u.user_id = $user_id AND a.telegram_key = $telegram_key AND a.logins = $generation
  AND NOT EXISTS (SELECT 1 FROM revoked_logins r WHERE r.login = $login)
  AND NOT EXISTS (SELECT 1 FROM erasures e WHERE e.user_id = u.user_id)

-- name: add_login_link
INSERT INTO login_links (link_sha256, user_id, expires_at) VALUES ($link_sha256, $user_id, $expires_at)
ON CONFLICT DO NOTHING

-- name: select_login_link
SELECT user_id, epoch_us(expires_at), used_at IS NOT NULL FROM login_links WHERE link_sha256 = $key

-- name: use_login_link
UPDATE login_links SET used_at = $used_at WHERE link_sha256 = $link_sha256

-- name: drop_login_links
DELETE FROM login_links WHERE expires_at < $before

-- name: insert_audit_log
INSERT INTO audit_log (entry, actor, action, target, details, address, made_at)
SELECT unnest($entry::VARCHAR[]), unnest($actor::VARCHAR[]), unnest($action::VARCHAR[]), unnest($target::VARCHAR[]),
       unnest($details::VARCHAR[]), unnest($address::VARCHAR[]), unnest($made_at::TIMESTAMPTZ[])

-- name: audit
SELECT entry, actor, action, target, details, address, epoch_us(made_at) FROM audit_log
ORDER BY made_at DESC, rowid DESC LIMIT $limit OFFSET $offset

-- name: select_grant
SELECT identity_sha256 FROM grants WHERE identity_sha256 = $key

-- name: insert_grants
INSERT INTO grants (identity_sha256, granted_at)
SELECT unnest($identity_sha256::VARCHAR[]), unnest($granted_at::TIMESTAMPTZ[])

-- name: select_token
SELECT token_sha256 FROM tokens WHERE token_sha256 = $key

-- name: insert_tokens
INSERT INTO tokens (token_sha256, user_id, kind, label, run, project, models, budget_ucredits, requests_per_minute,
                    expires_at, revoked_at, created_at)
SELECT unnest($token_sha256::VARCHAR[]), unnest($user::VARCHAR[]), unnest($kind::VARCHAR[]), unnest($label::BLOB[]),
       unnest($run::VARCHAR[]), unnest($project::VARCHAR[]), unnest($models::VARCHAR[][]),
       unnest($budget_ucredits::BIGINT[]), unnest($requests_per_minute::BIGINT[]), unnest($expires_at::TIMESTAMPTZ[]),
       NULL, unnest($created_at::TIMESTAMPTZ[])

-- name: revoke_token
UPDATE tokens SET revoked_at = $revoked_at
WHERE revoked_at IS NULL AND (token_sha256 = $token OR (length($token) = 12 AND starts_with(token_sha256, $token)))

-- A task's token is good only while its run is open.
-- name: identity_of_token
SELECT coalesce(u.is_admin, false), coalesce(u.role, 'DEMO'), t.user_id, t.kind, t.run, t.project, t.models,
       t.budget_ucredits, t.requests_per_minute, epoch_us(t.expires_at), epoch_us(s.expires_at), a.profile,
       coalesce(a.authorized, false), coalesce(a.banned, false)
FROM tokens t
LEFT JOIN users u ON u.user_id = t.user_id
LEFT JOIN subscriptions s ON s.user_id = t.user_id
LEFT JOIN user_accounts a ON a.user_id = t.user_id
LEFT JOIN runs r ON r.run = t.run
LEFT JOIN run_ends e ON e.run = t.run
WHERE t.token_sha256 = $token_sha256
  AND t.revoked_at IS NULL
  AND (t.expires_at IS NULL OR t.expires_at > $at_time)
  AND (t.kind IN ('user', 'project') OR (r.run IS NOT NULL AND e.run IS NULL))

-- What a token's escrows hold is committed under its budget, but not spent.
-- name: list_tokens
SELECT t.token_sha256, t.label, t.user_id, t.kind, t.run, t.project, t.models, t.budget_ucredits,
       t.requests_per_minute, (coalesce(b.committed_ucredits, 0) - coalesce(h.held_ucredits, 0))::HUGEINT,
       epoch_us(t.created_at), epoch_us(t.expires_at), epoch_us(t.revoked_at)
FROM tokens t
LEFT JOIN budgets b ON b.subject = 'token:' || t.token_sha256
LEFT JOIN (SELECT token_sha256, sum(granted_ucredits - charged_ucredits) AS held_ucredits FROM escrows
           WHERE ended_at IS NULL GROUP BY token_sha256) h ON h.token_sha256 = t.token_sha256
WHERE $user_id::VARCHAR IS NULL OR t.user_id = $user_id
ORDER BY t.created_at DESC, t.token_sha256

-- Only what came from the environment can be missing there.
-- name: deactivate_keys
UPDATE api_keys SET is_active = false WHERE is_active AND label = 'environment'

-- name: put_environment_key
INSERT INTO api_keys (key_id, provider, label, sealed, is_active, disabled, limits, expires_at, created_at)
VALUES ($key_id, $provider, $label, $sealed, true, false, $limits, $expires_at, $created_at)
ON CONFLICT (provider, key_id) DO UPDATE
SET sealed = excluded.sealed, limits = excluded.limits, expires_at = excluded.expires_at, is_active = true

-- name: put_key
INSERT INTO api_keys (key_id, provider, label, sealed, is_active, disabled, limits, expires_at, created_at)
VALUES ($key_id, $provider, $label, $sealed, $active, $disabled, $limits, $expires_at, $created_at)
ON CONFLICT (provider, key_id) DO UPDATE
SET label = excluded.label, sealed = excluded.sealed, is_active = excluded.is_active, disabled = excluded.disabled,
    limits = excluded.limits, expires_at = excluded.expires_at

-- name: disable_key
UPDATE api_keys SET disabled = $disabled WHERE key_id = $key_id

-- name: select_key
SELECT key_id FROM api_keys WHERE key_id = $key

-- name: reseal_key
UPDATE api_keys SET sealed = $sealed WHERE provider = $provider AND key_id = $key_id

-- name: add_key_rotation
INSERT INTO key_rotations (rotated_at, keys, old_master, new_master)
VALUES ($rotated_at, $keys, $old_master, $new_master)

-- name: key_rotations
SELECT epoch_us(rotated_at), keys, old_master, new_master FROM key_rotations ORDER BY rotated_at DESC

-- name: keys_of_provider
SELECT key_id, provider, label, sealed, is_active, disabled, limits, epoch_us(expires_at) FROM api_keys
WHERE provider = $provider AND is_active AND NOT disabled
ORDER BY created_at, key_id

-- name: all_keys
SELECT key_id, provider, label, sealed, is_active, disabled, limits, epoch_us(expires_at) FROM api_keys
ORDER BY provider, created_at, key_id

-- name: key_uses
SELECT key_id, count(*), epoch_us(max(at_time)) FROM (
    SELECT key_id, metered_at AS at_time FROM call_usages
    UNION ALL
    SELECT key_id, settled_at FROM escrow_calls
)
WHERE key_id <> '' GROUP BY key_id ORDER BY key_id

-- name: models
SELECT m.provider, m.model, epoch_us(m.effective_from), m.body, p.pricing_id, p.input_udollars_per_mtok,
       p.output_udollars_per_mtok, p.image_udollars
FROM models m JOIN model_pricing p ON p.pricing_id = m.pricing_id
ORDER BY m.provider, m.model, m.effective_from

-- name: put_model
INSERT INTO models (provider, model, effective_from, pricing_id, body, set_at)
VALUES ($provider, $model, $effective_from, $pricing_id, $body, $set_at)
ON CONFLICT (provider, model, effective_from) DO UPDATE
SET pricing_id = excluded.pricing_id, body = excluded.body, set_at = excluded.set_at

-- name: select_price
SELECT pricing_id, provider, model, input_udollars_per_mtok, output_udollars_per_mtok, image_udollars
FROM model_pricing WHERE pricing_id = $key

-- name: insert_model_pricing
INSERT INTO model_pricing (pricing_id, provider, model, input_udollars_per_mtok, output_udollars_per_mtok,
                           image_udollars, is_active, effective_from)
SELECT unnest($pricing_id::VARCHAR[]), unnest($provider::VARCHAR[]), unnest($model::VARCHAR[]),
       unnest($input_udollars_per_mtok::BIGINT[]), unnest($output_udollars_per_mtok::BIGINT[]),
       unnest($image_udollars::BIGINT[]), true, now()

-- name: activate_prices
UPDATE model_pricing SET is_active = list_contains($pricing_ids::VARCHAR[], pricing_id)
                                     OR pricing_id IN (SELECT pricing_id FROM models)

-- Money ========================================================================================================

-- name: select_account
SELECT account, unit, balance::HUGEINT FROM accounts WHERE account = $key

-- What a wallet holds and what of it is held, at one moment.
-- name: select_wallet
SELECT coalesce(sum(balance), 0)::HUGEINT, coalesce(sum(balance) FILTER (account = $held), 0)::HUGEINT
FROM accounts WHERE account IN ($free, $held)

-- name: insert_accounts
INSERT INTO accounts (account, unit, balance)
SELECT unnest($account::VARCHAR[]), unnest($unit::VARCHAR[]), unnest($balance::DECIMAL(38, 0)[])

-- name: update_accounts
UPDATE accounts SET balance = s.balance
FROM (SELECT unnest($account::VARCHAR[]) AS account, unnest($balance::DECIMAL(38, 0)[]) AS balance) s
WHERE accounts.account = s.account

-- name: insert_transfers
INSERT INTO transfers (transfer_id, unit, debit, credit, amount, reason, call, user_id, project, made_at, escrow, batch)
SELECT unnest($transfer_id::VARCHAR[]), unnest($unit::VARCHAR[]), unnest($debit::VARCHAR[]),
       unnest($credit::VARCHAR[]), unnest($amount::DECIMAL(38, 0)[]), unnest($reason::VARCHAR[]),
       unnest($call::VARCHAR[]), unnest($user::VARCHAR[]), unnest($project::VARCHAR[]),
       unnest($made_at::TIMESTAMPTZ[]), unnest($escrow::VARCHAR[]), unnest($batch::VARCHAR[])

-- name: select_budget
SELECT subject, ceiling_ucredits::HUGEINT, committed_ucredits::HUGEINT FROM budgets WHERE subject = $key

-- name: insert_budgets
INSERT INTO budgets (subject, ceiling_ucredits, committed_ucredits)
SELECT unnest($subject::VARCHAR[]), unnest($ceiling_ucredits::DECIMAL(38, 0)[]),
       unnest($committed_ucredits::DECIMAL(38, 0)[])

-- name: update_budgets
UPDATE budgets SET ceiling_ucredits = s.ceiling_ucredits, committed_ucredits = s.committed_ucredits
FROM (SELECT unnest($subject::VARCHAR[]) AS subject, unnest($ceiling_ucredits::DECIMAL(38, 0)[]) AS ceiling_ucredits,
             unnest($committed_ucredits::DECIMAL(38, 0)[]) AS committed_ucredits) s
WHERE budgets.subject = s.subject

-- What is committed under `day:<date>/user:<id>`, `.../provider:<name>` or `.../platform`. Only rows of the day and later
-- can say anything of a call that was held on it.
-- name: select_day
WITH asked AS (
    SELECT substr($key, 5, 10)::TIMESTAMP AT TIME ZONE 'UTC' AS day,
           split_part(substr($key, 16), ':', 1) AS scope, substr($key, 17 + strpos(substr($key, 16), ':') - 1) AS name
),
held AS (
    SELECT h.user_id, h.project, h.provider, h.held_at,
           CASE WHEN e.state = 'lost' THEN 0 ELSE coalesce(u.charge_ucredits, h.hold_ucredits) END AS amount
    FROM (SELECT * FROM call_holds WHERE held_at >= (SELECT day FROM asked)) h
    LEFT JOIN (SELECT * FROM call_usages WHERE metered_at >= (SELECT day FROM asked)) u ON u.call = h.call
    LEFT JOIN (SELECT * FROM call_ends WHERE ended_at >= (SELECT day FROM asked)) e ON e.call = h.call
),
drawn AS (
    SELECT * FROM escrows WHERE opened_at >= (SELECT day FROM asked)
),
amounts AS (
    SELECT user_id, project, provider, held_at AS at_time, amount FROM held
    UNION ALL
    SELECT d.user_id, d.project, d.provider, d.opened_at, c.charge_ucredits
    FROM (SELECT * FROM escrow_calls WHERE settled_at >= (SELECT day FROM asked)) c JOIN drawn d ON d.escrow = c.escrow
    UNION ALL
    SELECT user_id, project, provider, opened_at, granted_ucredits - charged_ucredits FROM drawn
)
SELECT coalesce(sum(amount), 0)::HUGEINT FROM amounts, asked
WHERE at_time < day + INTERVAL 24 HOUR
  AND CASE scope WHEN 'user' THEN user_id = name AND project IS NULL WHEN 'provider' THEN provider = name ELSE true END

-- name: select_begun_run
SELECT run FROM runs WHERE run = $key

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
SELECT call, user_id, run, project, token_sha256, task, attempt, task_type, provider, model, pricing_id,
       input_udollars_per_mtok, output_udollars_per_mtok, input_tokens_max, output_tokens_max,
       bound_pusd::HUGEINT, hold_ucredits::HUGEINT, state, outcome, input_tokens, output_tokens,
       cost_pusd::HUGEINT, charge_ucredits::HUGEINT, excess_pusd::HUGEINT, images, image_udollars,
       epoch_us(held_at)
FROM held_calls WHERE call = $key

-- name: select_held_call
SELECT call FROM call_holds WHERE call = $key

-- name: calls_of_project
SELECT call, user_id, run, project, token_sha256, task, attempt, task_type, provider, model, pricing_id,
       input_udollars_per_mtok, output_udollars_per_mtok, input_tokens_max, output_tokens_max,
       bound_pusd::HUGEINT, hold_ucredits::HUGEINT, state, outcome, input_tokens, output_tokens,
       cost_pusd::HUGEINT, charge_ucredits::HUGEINT, excess_pusd::HUGEINT, images, image_udollars,
       epoch_us(held_at)
FROM calls WHERE project = $project
ORDER BY held_at, call

-- The sums of the receipt, of the tables themselves: planning the views takes three times as long as this.
-- name: spent_on_project
SELECT coalesce(sum(ucredits), 0)::HUGEINT, coalesce(sum(cost_pusd), 0)::HUGEINT, coalesce(sum(refunded), 0)::HUGEINT
FROM (
    SELECT u.charge_ucredits AS ucredits, least(u.cost_pusd, h.bound_pusd) AS cost_pusd, 0 AS refunded
    FROM call_holds h JOIN call_usages u ON u.call = h.call JOIN call_ends e ON e.call = h.call
    WHERE h.project = $project AND e.state = 'settled' AND NOT u.provider_failed
    UNION ALL
    SELECT c.charge_ucredits, c.cost_pusd - c.loss_pusd, 0
    FROM escrow_grants g JOIN settled_calls c ON c.escrow = g.escrow JOIN call_traits t ON t.traits = c.traits
    WHERE g.project = $project AND t.outcome IN ('ok', 'estimated')
    UNION ALL
    SELECT 0, 0, amount_ucredits FROM call_refunds WHERE project = $project
)

-- name: open_calls_of_run
SELECT h.call FROM call_holds h LEFT JOIN call_ends e ON e.call = h.call
WHERE h.run = $key AND e.call IS NULL

-- name: stale_calls_without_run
SELECT call FROM held_calls WHERE run IS NULL AND state = 'held' AND held_at < $older_than ORDER BY call

-- name: insert_call_holds
INSERT INTO call_holds (call, user_id, run, project, token_sha256, task, attempt, task_type, provider, model, pricing_id,
                        input_udollars_per_mtok, output_udollars_per_mtok, input_tokens_max, output_tokens_max,
                        bound_pusd, hold_ucredits, images, image_udollars, held_at)
SELECT unnest($call::VARCHAR[]), unnest($user::VARCHAR[]), unnest($run::VARCHAR[]), unnest($project::VARCHAR[]),
       unnest($token_sha256::VARCHAR[]), unnest($task::VARCHAR[]), unnest($attempt::BIGINT[]), unnest($task_type::VARCHAR[]),
       unnest($provider::VARCHAR[]), unnest($model::VARCHAR[]), unnest($pricing_id::VARCHAR[]),
       unnest($input_udollars_per_mtok::BIGINT[]), unnest($output_udollars_per_mtok::BIGINT[]),
       unnest($input_tokens_max::BIGINT[]), unnest($output_tokens_max::BIGINT[]),
       unnest($bound_pusd::DECIMAL(38, 0)[]), unnest($hold_ucredits::DECIMAL(38, 0)[]), unnest($images::BIGINT[]),
       unnest($image_udollars::BIGINT[]), unnest($held_at::TIMESTAMPTZ[])

-- name: insert_call_usages
INSERT INTO call_usages (call, input_tokens, output_tokens, cost_pusd, charge_ucredits, provider_failed,
                         response_time_ms, key_id, metered_at, estimated)
SELECT unnest($call::VARCHAR[]), unnest($input_tokens::BIGINT[]), unnest($output_tokens::BIGINT[]),
       unnest($cost_pusd::DECIMAL(38, 0)[]), unnest($charge_ucredits::DECIMAL(38, 0)[]),
       unnest($provider_failed::BOOLEAN[]), unnest($response_time_ms::BIGINT[]), unnest($key_id::VARCHAR[]),
       unnest($metered_at::TIMESTAMPTZ[]), unnest($estimated::BOOLEAN[])

-- name: insert_call_ends
INSERT INTO call_ends (call, state, ended_at)
SELECT unnest($call::VARCHAR[]), unnest($state::VARCHAR[]), unnest($ended_at::TIMESTAMPTZ[])

-- Escrows ------------------------------------------------------------------------------------------------------

-- As the view `escrows` says it, without adding up the others' transfers.
-- name: select_escrow
SELECT escrow, process, user_id, project, token_sha256, granted_ucredits::HUGEINT,
       CASE WHEN ended_at IS NOT NULL THEN charged_ucredits::HUGEINT
            ELSE (SELECT coalesce(sum(amount), 0) FROM transfers WHERE escrow = $key AND reason = 'charge')::HUGEINT END,
       provider, epoch_us(opened_at), epoch_us(ended_at)
FROM escrow_grants WHERE escrow = $key

-- name: select_escrow_id
SELECT escrow FROM escrow_grants WHERE escrow = $key

-- name: insert_escrow_grants
INSERT INTO escrow_grants (escrow, process, user_id, project, token_sha256, granted_ucredits, charged_ucredits, provider,
                           opened_at, ended_at)
SELECT unnest($escrow::VARCHAR[]), unnest($process::VARCHAR[]), unnest($user::VARCHAR[]), unnest($project::VARCHAR[]),
       unnest($token_sha256::VARCHAR[]), unnest($granted_ucredits::DECIMAL(38, 0)[]),
       unnest($charged_ucredits::DECIMAL(38, 0)[]), unnest($provider::VARCHAR[]), unnest($opened_at::TIMESTAMPTZ[]),
       unnest($ended_at::TIMESTAMPTZ[])

-- name: update_escrow_grants
UPDATE escrow_grants SET granted_ucredits = s.granted_ucredits, charged_ucredits = s.charged_ucredits, ended_at = s.ended_at
FROM (SELECT unnest($escrow::VARCHAR[]) AS escrow, unnest($granted_ucredits::DECIMAL(38, 0)[]) AS granted_ucredits,
             unnest($charged_ucredits::DECIMAL(38, 0)[]) AS charged_ucredits,
             unnest($ended_at::TIMESTAMPTZ[]) AS ended_at) s
WHERE escrow_grants.escrow = s.escrow

-- name: open_escrows
SELECT escrow, process FROM escrow_grants WHERE ended_at IS NULL ORDER BY escrow

-- name: open_escrows_of_user
SELECT escrow FROM escrow_grants WHERE ended_at IS NULL AND user_id = $key

-- name: open_escrows_of_process
SELECT escrow FROM escrow_grants WHERE ended_at IS NULL AND process = $process

-- name: select_escrow_call
SELECT call FROM settled_calls WHERE call = $key

-- name: select_call_traits
SELECT traits FROM call_traits WHERE traits = $key

-- name: insert_call_traits
INSERT INTO call_traits (traits, task_type, provider, model, pricing_id, input_udollars_per_mtok,
                         output_udollars_per_mtok, image_udollars, key_id, outcome)
SELECT unnest($traits::BIGINT[]), unnest($task_type::VARCHAR[]), unnest($provider::VARCHAR[]), unnest($model::VARCHAR[]),
       unnest($pricing_id::VARCHAR[]), unnest($input_udollars_per_mtok::BIGINT[]),
       unnest($output_udollars_per_mtok::BIGINT[]), unnest($image_udollars::BIGINT[]), unnest($key_id::VARCHAR[]),
       unnest($outcome::VARCHAR[])

-- name: insert_settled_calls
INSERT INTO settled_calls (call, escrow, batch, traits, input_tokens_max, output_tokens_max, input_tokens, output_tokens,
                           images, cost_pusd, charge_ucredits, loss_pusd, response_time_ms, held_at, settled_at)
SELECT unnest($call::VARCHAR[]), unnest($escrow::VARCHAR[]), unnest($batch::VARCHAR[]), unnest($traits::BIGINT[]),
       unnest($input_tokens_max::BIGINT[]), unnest($output_tokens_max::BIGINT[]), unnest($input_tokens::BIGINT[]),
       unnest($output_tokens::BIGINT[]), unnest($images::BIGINT[]), unnest($cost_pusd::DECIMAL(38, 0)[]),
       unnest($charge_ucredits::DECIMAL(38, 0)[]), unnest($loss_pusd::DECIMAL(38, 0)[]),
       unnest($response_time_ms::BIGINT[]), unnest($held_at::TIMESTAMPTZ[]), unnest($settled_at::TIMESTAMPTZ[])

-- Wallets ------------------------------------------------------------------------------------------------------

-- name: select_purchase
SELECT p.user_id, p.product, p.ucredits::HUGEINT, p.paid_pusd::HUGEINT, coalesce(s.days, 0)
FROM purchases p LEFT JOIN subscription_periods s ON s.purchase = p.purchase WHERE p.purchase = $key

-- name: purchases_of_user
SELECT purchase FROM purchases WHERE user_id = $user_id LIMIT 1

-- name: insert_purchases
INSERT INTO purchases (purchase, provider, external_id, user_id, product, ucredits, paid_pusd, currency, amount_minor,
                       made_at)
SELECT unnest($purchase::VARCHAR[]), unnest($provider::VARCHAR[]), unnest($external_id::VARCHAR[]),
       unnest($user::VARCHAR[]), unnest($product::VARCHAR[]), unnest($ucredits::DECIMAL(38, 0)[]),
       unnest($paid_pusd::DECIMAL(38, 0)[]), unnest($currency::VARCHAR[]), unnest($amount_minor::BIGINT[]),
       unnest($made_at::TIMESTAMPTZ[])

-- name: select_order
SELECT order_id, user_id, provider, product, ucredits::HUGEINT, amount_minor, currency, paid_pusd::HUGEINT, days, state,
       external_id, epoch_us(created_at), epoch_us(completed_at)
FROM payment_orders WHERE order_id = $key

-- name: count_orders
SELECT count(*) FROM payment_orders WHERE user_id = $user_id AND created_at > $since

-- name: insert_payment_orders
INSERT INTO payment_orders (order_id, user_id, provider, product, ucredits, amount_minor, currency, paid_pusd, days,
                            state, external_id, created_at, completed_at)
SELECT unnest($id::VARCHAR[]), unnest($user::VARCHAR[]), unnest($provider::VARCHAR[]), unnest($product::VARCHAR[]),
       unnest($ucredits::DECIMAL(38, 0)[]), unnest($amount_minor::BIGINT[]), unnest($currency::VARCHAR[]),
       unnest($paid_pusd::DECIMAL(38, 0)[]), unnest($days::BIGINT[]), unnest($state::VARCHAR[]),
       unnest($external_id::VARCHAR[]),
       unnest($created_at::TIMESTAMPTZ[]), unnest($completed_at::TIMESTAMPTZ[])

-- name: update_payment_orders
UPDATE payment_orders SET state = s.state, external_id = s.external_id, completed_at = s.completed_at
FROM (SELECT unnest($id::VARCHAR[]) AS id, unnest($state::VARCHAR[]) AS state,
             unnest($external_id::VARCHAR[]) AS external_id, unnest($completed_at::TIMESTAMPTZ[]) AS completed_at) s
WHERE payment_orders.order_id = s.id

-- name: select_repayment
SELECT taken_ucredits::HUGEINT FROM repayments WHERE purchase = $key

-- name: insert_repayments
INSERT INTO repayments (purchase, taken_ucredits, reason, made_at)
SELECT unnest($purchase::VARCHAR[]), unnest($taken_ucredits::DECIMAL(38, 0)[]), unnest($reason::VARCHAR[]),
       unnest($made_at::TIMESTAMPTZ[])

-- name: select_periods
SELECT purchase, user_id, days, epoch_us(starts_at), epoch_us(ends_at) FROM subscription_periods
WHERE user_id = $key ORDER BY starts_at, ends_at, purchase

-- name: insert_subscription_periods
INSERT INTO subscription_periods (purchase, user_id, days, starts_at, ends_at)
SELECT unnest($purchase::VARCHAR[]), unnest($user::VARCHAR[]), unnest($days::BIGINT[]),
       unnest($starts_at::TIMESTAMPTZ[]), unnest($ends_at::TIMESTAMPTZ[])

-- name: update_subscription_periods
UPDATE subscription_periods SET starts_at = s.starts_at, ends_at = s.ends_at
FROM (SELECT unnest($purchase::VARCHAR[]) AS purchase, unnest($starts_at::TIMESTAMPTZ[]) AS starts_at,
             unnest($ends_at::TIMESTAMPTZ[]) AS ends_at) s
WHERE subscription_periods.purchase = s.purchase

-- name: select_subscription
SELECT epoch_us(expires_at) FROM subscriptions WHERE user_id = $user_id

-- Whose subscription has ended, or ends soon, and who was not told that. Who is more than DEMO without it loses nothing.
-- name: subscription_ends
SELECT s.user_id, epoch_us(s.expires_at), s.expires_at <= $now AS has_ended
FROM subscriptions s
JOIN users u ON u.user_id = s.user_id AND u.role = 'DEMO'
ANTI JOIN subscription_events e
       ON e.user_id = s.user_id AND e.expires_at = s.expires_at
      AND e.event = CASE WHEN s.expires_at <= $now THEN 'ended' ELSE 'ending' END
WHERE s.expires_at <= $soon
  AND NOT EXISTS (SELECT 1 FROM erasures g WHERE g.user_id = s.user_id OR g.pseudonym = s.user_id)
ORDER BY s.expires_at, s.user_id LIMIT $limit

-- name: add_subscription_event
INSERT INTO subscription_events (user_id, expires_at, event, made_at)
VALUES ($user_id, $expires_at, $event, $made_at)

-- name: select_star_payment
SELECT p.charge_id, p.provider_charge_id, p.user_id, p.product, p.stars, p.currency, epoch_us(p.paid_at),
       p.ucredits::HUGEINT, p.days, p.failure, epoch_us(p.booked_at), r.taken_ucredits::HUGEINT, r.taken_us, r.reason,
       r.made_by, epoch_us(r.made_at), epoch_us(r.told_at)
FROM star_payments p LEFT JOIN star_refunds r ON r.charge_id = p.charge_id WHERE p.charge_id = $key

-- name: star_payments_of_user
SELECT p.charge_id, p.provider_charge_id, p.user_id, p.product, p.stars, p.currency, epoch_us(p.paid_at),
       p.ucredits::HUGEINT, p.days, p.failure, epoch_us(p.booked_at), r.taken_ucredits::HUGEINT, r.taken_us, r.reason,
       r.made_by, epoch_us(r.made_at), epoch_us(r.told_at)
FROM star_payments p LEFT JOIN star_refunds r ON r.charge_id = p.charge_id WHERE p.user_id = $user_id
ORDER BY p.booked_at, p.charge_id

-- name: untold_star_refunds
SELECT p.charge_id, p.provider_charge_id, p.user_id, p.product, p.stars, p.currency, epoch_us(p.paid_at),
       p.ucredits::HUGEINT, p.days, p.failure, epoch_us(p.booked_at), r.taken_ucredits::HUGEINT, r.taken_us, r.reason,
       r.made_by, epoch_us(r.made_at), epoch_us(r.told_at)
FROM star_refunds r JOIN star_payments p ON p.charge_id = r.charge_id WHERE r.told_at IS NULL
ORDER BY r.made_at, r.charge_id

-- name: insert_star_payments
INSERT INTO star_payments (charge_id, provider_charge_id, user_id, product, stars, currency, ucredits, days, failure,
                           paid_at, booked_at)
SELECT unnest($charge_id::VARCHAR[]), unnest($provider_charge_id::VARCHAR[]), unnest($user::VARCHAR[]),
       unnest($product::VARCHAR[]), unnest($stars::BIGINT[]), unnest($currency::VARCHAR[]),
       unnest($ucredits::DECIMAL(38, 0)[]), unnest($days::BIGINT[]), unnest($failure::VARCHAR[]),
       unnest($paid_at::TIMESTAMPTZ[]), unnest($booked_at::TIMESTAMPTZ[])

-- name: insert_star_refunds
INSERT INTO star_refunds (charge_id, taken_ucredits, taken_us, reason, made_by, made_at)
SELECT unnest($charge_id::VARCHAR[]), unnest($taken_ucredits::DECIMAL(38, 0)[]), unnest($taken_us::BIGINT[]),
       unnest($reason::VARCHAR[]), unnest($made_by::VARCHAR[]), unnest($made_at::TIMESTAMPTZ[])

-- name: mark_star_refund_told
UPDATE star_refunds SET told_at = $told_at WHERE charge_id = $charge_id AND told_at IS NULL

-- What a payer sees: payments with Stars, and orders at the other providers.
-- name: payments_of_user
SELECT * FROM (
    SELECT 'telegram' AS provider, v.telegram_payment_charge_id AS external_id, v.product_id, p.ucredits::HUGEINT,
           p.days, p.stars, v.currency, v.status, p.failure, epoch_us(v.created_at) AS at_us, epoch_us(v.expires_at)
    FROM payments v JOIN star_payments p ON p.charge_id = v.telegram_payment_charge_id WHERE p.user_id = $user_id
    UNION ALL
    SELECT o.provider, o.external_id, o.product, o.ucredits::HUGEINT, o.days, o.amount_minor, o.currency, o.state, '',
           epoch_us(o.created_at), epoch_us(s.ends_at)
    FROM payment_orders o LEFT JOIN subscription_periods s ON s.purchase = o.provider || '/' || o.external_id
    WHERE o.user_id = $user_id
)
ORDER BY at_us DESC, external_id LIMIT 200

-- name: select_adjustment
SELECT user_id, amount_ucredits::HUGEINT, reason FROM adjustments WHERE adjustment = $key

-- name: insert_adjustments
INSERT INTO adjustments (adjustment, user_id, amount_ucredits, reason, made_by, made_at)
SELECT unnest($adjustment::VARCHAR[]), unnest($user::VARCHAR[]), unnest($amount_ucredits::DECIMAL(38, 0)[]),
       unnest($reason::VARCHAR[]), unnest($made_by::VARCHAR[]), unnest($made_at::TIMESTAMPTZ[])

-- name: charge_of_call
SELECT user_id, project, state, outcome, charge_ucredits::HUGEINT FROM calls WHERE call = $call
AND state = 'settled'

-- name: select_call_refund
SELECT amount_ucredits::HUGEINT FROM call_refunds WHERE call = $key

-- name: insert_call_refunds
INSERT INTO call_refunds (call, user_id, project, amount_ucredits, reason, made_by, made_at)
SELECT unnest($call::VARCHAR[]), unnest($user::VARCHAR[]), unnest($project::VARCHAR[]),
       unnest($amount_ucredits::DECIMAL(38, 0)[]), unnest($reason::VARCHAR[]), unnest($made_by::VARCHAR[]),
       unnest($made_at::TIMESTAMPTZ[])

-- name: refunds_of_project
SELECT call, amount_ucredits::HUGEINT, reason, epoch_us(made_at) FROM call_refunds
WHERE project = $project ORDER BY made_at, call

-- name: statement
SELECT id, transaction_type, amount_ucredits::HUGEINT, cost_pusd::HUGEINT, api_key_usage_id, project_id,
       external_transaction_id, description, epoch_us(created_at)
FROM movements, (SELECT max(created_at) AS at FROM movements WHERE user_id = $user_id AND id = $after) seen
WHERE user_id = $user_id
  AND ($after::VARCHAR IS NULL OR created_at < seen.at OR (created_at = seen.at AND id > $after))
ORDER BY created_at DESC, id LIMIT $limit

-- Who fell below the threshold and was not told, and who is above it again.
-- name: balance_crossings
SELECT u.user_id, u.is_low, coalesce(b.balance, 0)::HUGEINT
FROM users u
LEFT JOIN (SELECT split_part(substr(account, 6), '/', 1) AS user_id, sum(balance) AS balance FROM accounts
           WHERE starts_with(account, 'user:') GROUP BY ALL) b ON b.user_id = u.user_id
WHERE u.is_low <> (coalesce(b.balance, 0) < $low)
ORDER BY u.user_id LIMIT 1000

-- name: set_low
UPDATE users SET is_low = $is_low WHERE user_id = $user_id

-- name: add_notice
INSERT INTO notices (notice, user_id, kind, text, made_at) VALUES ($notice, $user_id, $kind, $text, $made_at)

-- name: notices
SELECT kind, text, epoch_us(made_at) FROM notices WHERE user_id = $user_id ORDER BY made_at DESC, notice LIMIT 20

-- name: untold_notices
SELECT kind, text, epoch_us(made_at) FROM notices
WHERE user_id = $user_id AND told_at IS NULL ORDER BY made_at, notice LIMIT 20

-- name: mark_told
UPDATE notices SET told_at = $told_at WHERE user_id = $user_id AND told_at IS NULL AND made_at <= $until

-- An account that is erased, or is going to be, is stopped for good.
-- name: select_stop
SELECT user_id, reason, lifted_us FROM (
    SELECT $key AS user_id, 'the account is erased' AS reason, NULL::BIGINT AS lifted_us, 0 AS place
    FROM erasures WHERE user_id = $key OR pseudonym = $key
    UNION ALL
    SELECT user_id, reason, epoch_us(lifted_at), 1 FROM stops WHERE user_id = $key
)
ORDER BY place LIMIT 1

-- name: put_stop
INSERT INTO stops (user_id, reason, since, lifted_at) VALUES ($user_id, $reason, $since, NULL)
ON CONFLICT (user_id) DO UPDATE SET reason = excluded.reason, since = excluded.since, lifted_at = NULL

-- name: lift_stop
UPDATE stops SET lifted_at = $lifted_at WHERE user_id = $user_id AND lifted_at IS NULL

-- name: user_of_subject
SELECT user_id FROM calls WHERE call = $subject
UNION SELECT user_id FROM escrows WHERE escrow = $subject
UNION SELECT user_id FROM runs WHERE project = $subject
UNION SELECT user_id FROM transfers WHERE transfer_id = $subject AND user_id IS NOT NULL
UNION SELECT user_id FROM purchases WHERE 'purchase/' || purchase || '/purchase' = $subject
UNION SELECT user_id FROM adjustments WHERE 'adjustment/' || adjustment || '/adjustment' = $subject
UNION SELECT user_id FROM tokens WHERE 'token:' || token_sha256 = $subject
UNION SELECT user_id FROM payment_orders WHERE order_id = $subject
UNION SELECT user_id FROM star_payments WHERE charge_id = $subject
UNION SELECT user_id FROM subscription_periods WHERE purchase = $subject
LIMIT 1

-- name: stops
SELECT user_id, reason, epoch_us(since) FROM stops WHERE lifted_at IS NULL ORDER BY since, user_id

-- Persons ------------------------------------------------------------------------------------------------------

-- name: select_person
SELECT u.user_id, u.is_admin, u.role, u.email, epoch_us(u.created_at), epoch_us(e.asked_at), epoch_us(s.expires_at)
FROM users u LEFT JOIN erasures e ON e.user_id = u.user_id LEFT JOIN subscriptions s ON s.user_id = u.user_id
WHERE u.user_id = $user_id

-- name: set_email
UPDATE users SET email = $email WHERE user_id = $user_id

-- name: calls_of_user
SELECT call, user_id, run, project, token_sha256, task, attempt, task_type, provider, model, pricing_id,
       input_udollars_per_mtok, output_udollars_per_mtok, input_tokens_max, output_tokens_max,
       bound_pusd::HUGEINT, hold_ucredits::HUGEINT, state, outcome, input_tokens, output_tokens,
       cost_pusd::HUGEINT, charge_ucredits::HUGEINT, excess_pusd::HUGEINT, images, image_udollars,
       epoch_us(held_at)
FROM calls WHERE user_id = $user_id AND call > $after
ORDER BY call LIMIT $limit

-- name: orders_of_user
SELECT order_id, user_id, provider, product, ucredits::HUGEINT, amount_minor, currency, paid_pusd::HUGEINT, days, state,
       external_id, epoch_us(created_at), epoch_us(completed_at)
FROM payment_orders WHERE user_id = $user_id ORDER BY created_at, order_id

-- name: all_purchases_of_user
SELECT p.provider, p.external_id, p.user_id, p.product, p.ucredits::HUGEINT, p.paid_pusd::HUGEINT, p.currency,
       p.amount_minor, coalesce(s.days, 0), epoch_us(p.made_at), r.taken_ucredits::HUGEINT
FROM purchases p LEFT JOIN repayments r ON r.purchase = p.purchase
LEFT JOIN subscription_periods s ON s.purchase = p.purchase
WHERE p.user_id = $user_id ORDER BY p.made_at, p.purchase

-- name: all_notices
SELECT kind, text, epoch_us(made_at) FROM notices WHERE user_id = $user_id ORDER BY made_at DESC, notice

-- name: feedback_of_user
SELECT project, score, text_sealed, epoch_us(made_at) FROM project_feedback WHERE user_id = $user_id
ORDER BY made_at, project

-- name: select_erasure
SELECT pseudonym, user_id, identity_sha256, forfeits_ucredits::HUGEINT, epoch_us(asked_at) FROM erasures
WHERE user_id = $key

-- name: insert_erasures
INSERT INTO erasures (pseudonym, user_id, identity_sha256, forfeits_ucredits, asked_at)
SELECT unnest($pseudonym::VARCHAR[]), unnest($user::VARCHAR[]), unnest($identity_sha256::VARCHAR[]),
       unnest($forfeits_ucredits::DECIMAL(38, 0)[]), unnest($asked_at::TIMESTAMPTZ[])

-- name: unfinished_erasures
SELECT pseudonym, user_id, epoch_us(asked_at), epoch_us(renamed_at) FROM erasures WHERE erased_at IS NULL
ORDER BY asked_at, pseudonym

-- name: erased_identities
SELECT identity_sha256, pseudonym, epoch_us(renamed_at) FROM erasures WHERE renamed_at IS NOT NULL ORDER BY renamed_at

-- name: revoke_tokens_of_user
UPDATE tokens SET revoked_at = $revoked_at WHERE user_id = $user_id AND revoked_at IS NULL

-- Each with whether it has a reminder of this name. A session belongs to whom it is named after.
-- name: entities_of_owner
SELECT e.entity, e.open, r.name IS NOT NULL
FROM entities e LEFT JOIN reminders r ON r.entity = e.entity AND r.name = $reminder
WHERE e.owner = $owner OR e.entity = 'user:' || $owner ORDER BY e.entity

-- name: entries_of_entity
SELECT entity, seq, type, payload FROM entries
WHERE position >= (SELECT first_position FROM entities WHERE entity = $entity) AND entity = $entity

-- name: open_runs_of_user
SELECT r.run FROM runs r LEFT JOIN run_ends e ON e.run = r.run WHERE r.user_id = $user_id AND e.run IS NULL ORDER BY r.run

-- name: open_calls_of_user
SELECT call FROM held_calls WHERE user_id = $user_id AND run IS NULL AND state = 'held' ORDER BY call

-- Erasing: every table that names a person. `$user` is the id, `$pseudonym` what takes its place.
-- name: erase_accounts
UPDATE accounts SET account = 'user:' || $pseudonym || substr(account, 6 + length($user))
WHERE account IN ('user:' || $user, 'user:' || $user || '/held')

-- name: erase_transfers
UPDATE transfers
SET user_id = CASE user_id WHEN $user THEN $pseudonym ELSE user_id END,
    debit = CASE debit WHEN 'user:' || $user THEN 'user:' || $pseudonym
                       WHEN 'user:' || $user || '/held' THEN 'user:' || $pseudonym || '/held' ELSE debit END,
    credit = CASE credit WHEN 'user:' || $user THEN 'user:' || $pseudonym
                         WHEN 'user:' || $user || '/held' THEN 'user:' || $pseudonym || '/held' ELSE credit END
WHERE user_id = $user OR debit IN ('user:' || $user, 'user:' || $user || '/held')
   OR credit IN ('user:' || $user, 'user:' || $user || '/held')

-- name: erase_referral
UPDATE transfers SET transfer_id = 'referral/' || $pseudonym || '/referral'
WHERE transfer_id = 'referral/' || $user || '/referral'

-- name: erase_runs
UPDATE runs SET user_id = $pseudonym WHERE user_id = $user

-- name: erase_call_holds
UPDATE call_holds SET user_id = $pseudonym WHERE user_id = $user

-- name: erase_escrows
UPDATE escrow_grants SET user_id = $pseudonym WHERE user_id = $user

-- name: erase_reasons_of_repayments
UPDATE repayments SET reason = '(erased)' WHERE purchase IN (SELECT purchase FROM purchases WHERE user_id = $user)

-- name: erase_purchases
UPDATE purchases SET user_id = $pseudonym WHERE user_id = $user

-- name: erase_payment_orders
UPDATE payment_orders SET user_id = $pseudonym WHERE user_id = $user

-- name: erase_adjustments
UPDATE adjustments SET user_id = $pseudonym, reason = '(erased)' WHERE user_id = $user

-- name: erase_makers_of_adjustments
UPDATE adjustments SET made_by = $pseudonym WHERE made_by = $user

-- name: erase_call_refunds
UPDATE call_refunds SET user_id = $pseudonym, reason = '(erased)' WHERE user_id = $user

-- name: erase_makers_of_call_refunds
UPDATE call_refunds SET made_by = $pseudonym WHERE made_by = $user

-- name: erase_reasons_of_star_refunds
UPDATE star_refunds SET reason = '(erased)' WHERE charge_id IN (SELECT charge_id FROM star_payments WHERE user_id = $user)

-- name: erase_makers_of_star_refunds
UPDATE star_refunds SET made_by = $pseudonym WHERE made_by = $user

-- What was paid for nothing that we sell may hold words of whoever made the invoice.
-- name: erase_star_payments
UPDATE star_payments
SET user_id = $pseudonym, product = CASE WHEN failure <> '' THEN '(erased)' ELSE product END,
    failure = CASE WHEN failure <> '' THEN '(erased)' ELSE '' END
WHERE user_id = $user

-- name: erase_periods
UPDATE subscription_periods SET user_id = $pseudonym WHERE user_id = $user

-- name: erase_subscription_events
UPDATE subscription_events SET user_id = $pseudonym WHERE user_id = $user

-- name: erase_stops
UPDATE stops SET user_id = $pseudonym, reason = '(erased)' WHERE user_id = $user

-- name: erase_alerts
UPDATE alerts SET condition = 'account-stopped:' || $pseudonym, text = $pseudonym || ' is stopped',
                  alert = 'account-stopped:' || $pseudonym || substr(alert, 1 + length(condition))
WHERE condition = 'account-stopped:' || $user

-- name: erase_project_statuses
UPDATE project_statuses SET user_id = $pseudonym WHERE user_id = $user

-- name: erase_purge_log
UPDATE purge_log SET user_id = $pseudonym WHERE user_id = $user

-- name: erase_project_feedback
UPDATE project_feedback SET user_id = $pseudonym, text_sealed = NULL WHERE user_id = $user

-- name: erase_user
UPDATE users SET user_id = $pseudonym, is_admin = false, role = 'DEMO', invited_by = NULL, is_low = true, email = NULL
WHERE user_id = $user

-- Nobody has a bonus from somebody who is not there any more.
-- name: erase_inviter
UPDATE users SET invited_by = NULL WHERE invited_by = $user

-- name: erase_user_account
DELETE FROM user_accounts WHERE user_id = $user

-- name: erase_invites
UPDATE invite_codes SET created_by = $pseudonym WHERE created_by = $user

-- name: erase_invite_uses
UPDATE invite_uses SET user_id = $pseudonym WHERE user_id = $user

-- name: erase_wrong_attempts
DELETE FROM wrong_attempts WHERE user_id = $user

-- name: erase_revoked_logins
DELETE FROM revoked_logins WHERE user_id = $user

-- name: erase_login_links
DELETE FROM login_links WHERE user_id = $user

-- name: erase_audit
UPDATE audit_log SET actor = CASE WHEN actor = $user THEN $pseudonym ELSE actor END,
                     target = CASE WHEN target = $user THEN $pseudonym ELSE target END,
                     address = CASE WHEN actor = $user THEN '' ELSE address END
WHERE actor = $user OR target = $user

-- name: erase_tokens
DELETE FROM tokens WHERE user_id = $user

-- name: erase_notices
DELETE FROM notices WHERE user_id = $user

-- name: erase_entries
WITH own AS (SELECT entity, first_position FROM entities WHERE owner = $user OR entity = 'user:' || $user)
DELETE FROM entries
WHERE position >= (SELECT coalesce(min(first_position), 0) FROM own) AND entity IN (SELECT entity FROM own)

-- name: erase_entity_reminders
DELETE FROM reminders
WHERE entity IN (SELECT entity FROM entities WHERE owner = $user OR entity = 'user:' || $user)

-- name: erase_entities
DELETE FROM entities WHERE owner = $user OR entity = 'user:' || $user

-- name: add_erasure_files
INSERT INTO erasure_files (pseudonym, file) SELECT $pseudonym, unnest($files::VARCHAR[])

-- name: note_renamed
UPDATE erasures SET user_id = NULL, renamed_at = $at WHERE pseudonym = $pseudonym

-- name: erasure_files
SELECT file FROM erasure_files WHERE pseudonym = $pseudonym ORDER BY file

-- name: drop_erasure_file
DELETE FROM erasure_files WHERE pseudonym = $pseudonym AND file = $file

-- name: note_erased
UPDATE erasures SET erased_at = $at WHERE pseudonym = $pseudonym

-- Everything that does not add up, as (subject, text). Each part names what it compares with what.
-- name: mismatches
WITH legs AS (
    SELECT credit AS account, unit, amount::HUGEINT AS amount, call, escrow, batch FROM transfers
    UNION ALL
    SELECT debit, unit, -amount::HUGEINT, call, escrow, batch FROM transfers
),
derived AS (
    SELECT account, unit, sum(amount)::HUGEINT AS balance FROM legs GROUP BY ALL
),
open_holds AS (
    SELECT 'user:' || user_id || '/held' AS account, sum(amount)::HUGEINT AS held
    FROM (SELECT user_id, charge_ucredits AS amount FROM held_calls WHERE state IN ('held', 'metered')
          UNION ALL
          SELECT user_id, granted_ucredits - charged_ucredits FROM escrows)
    GROUP BY ALL
),
budget_uses AS (
    SELECT subject, sum(amount)::HUGEINT AS committed
    FROM (SELECT unnest([project, 'token:' || nullif(token_sha256, '')]) AS subject, charge_ucredits AS amount FROM calls
          UNION ALL
          SELECT unnest([project, 'token:' || nullif(token_sha256, '')]), granted_ucredits - charged_ucredits
          FROM escrows)
    WHERE subject IS NOT NULL GROUP BY subject
),
posted AS (
    SELECT call,
           sum(CASE WHEN account = 'platform:revenue' THEN amount ELSE 0 END) AS charged,
           sum(CASE WHEN unit = 'credit' AND account LIKE 'user:%/held' THEN amount ELSE 0 END) AS held,
           sum(CASE WHEN account LIKE 'provider:%' THEN amount ELSE 0 END) AS cost
    FROM legs WHERE call IS NOT NULL GROUP BY call
),
escrow_posted AS (
    SELECT escrow,
           sum(CASE WHEN account = 'platform:revenue' THEN amount ELSE 0 END) AS charged,
           sum(CASE WHEN account LIKE 'user:%/held' THEN amount ELSE 0 END) AS held
    FROM legs WHERE escrow IS NOT NULL GROUP BY escrow
),
escrow_used AS (
    SELECT escrow, sum(charge_ucredits)::HUGEINT AS charged FROM escrow_calls GROUP BY escrow
),
batch_posted AS (
    SELECT batch,
           sum(CASE WHEN account = 'platform:revenue' THEN amount ELSE 0 END) AS charged,
           sum(CASE WHEN account LIKE 'provider:%' THEN amount ELSE 0 END) AS cost,
           -sum(CASE WHEN account = 'platform:losses' THEN amount ELSE 0 END) AS lost
    FROM legs WHERE batch IS NOT NULL GROUP BY batch
),
batch_used AS (
    SELECT batch, sum(charge_ucredits)::HUGEINT AS charged, sum(cost_pusd)::HUGEINT AS cost,
           sum(loss_pusd)::HUGEINT AS lost
    FROM escrow_calls GROUP BY batch
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
SELECT coalesce(b.subject, u.subject),
       'committed ' || coalesce(b.committed_ucredits, 0)::VARCHAR || ', calls ' || coalesce(u.committed, 0)::VARCHAR
FROM budgets b FULL JOIN budget_uses u ON b.subject = u.subject
WHERE coalesce(b.committed_ucredits::HUGEINT, 0) <> coalesce(u.committed, 0)
UNION ALL
SELECT coalesce(c.call, p.call), 'the transfers of this call are not what its receipt says'
FROM held_calls c FULL JOIN posted p ON c.call = p.call
WHERE c.call IS NULL
   OR coalesce(p.charged, 0) <> CASE c.state WHEN 'settled' THEN c.charge_ucredits ELSE 0 END
   OR coalesce(p.held, 0) <> CASE WHEN c.state IN ('held', 'metered') THEN c.charge_ucredits ELSE 0 END
   OR coalesce(p.cost, 0) <> CASE WHEN c.state IN ('settled', 'lost') THEN c.cost_pusd ELSE 0 END
UNION ALL
SELECT coalesce(e.escrow, p.escrow), 'the transfers of this escrow are not what its row and its calls say'
FROM escrows e FULL JOIN escrow_posted p ON e.escrow = p.escrow LEFT JOIN escrow_used u ON u.escrow = e.escrow
WHERE e.escrow IS NULL
   OR coalesce(p.held, 0) <> e.granted_ucredits - e.charged_ucredits
   OR coalesce(p.charged, 0) <> coalesce(u.charged, 0)
   OR e.charged_ucredits > e.granted_ucredits
   OR (e.ended_at IS NOT NULL AND e.charged_ucredits <> e.granted_ucredits)
UNION ALL
SELECT coalesce(u.batch, p.batch), 'the transfers of this batch are not what its calls say'
FROM batch_used u FULL JOIN batch_posted p ON u.batch = p.batch
WHERE coalesce(p.charged, 0) <> coalesce(u.charged, 0)
   OR coalesce(p.cost, 0) <> coalesce(u.cost, 0)
   OR coalesce(p.lost, 0) <> coalesce(u.lost, 0)
UNION ALL
SELECT coalesce(r.call, t.call), 'refunded ' || coalesce(r.amount_ucredits, 0)::VARCHAR || ', transferred '
       || coalesce(t.amount, 0)::VARCHAR
FROM call_refunds r
FULL JOIN (SELECT left(transfer_id, length(transfer_id) - 7) AS call, amount FROM transfers WHERE reason = 'refund') t
       ON t.call = r.call
WHERE coalesce(r.amount_ucredits, 0) <> coalesce(t.amount, 0)
UNION ALL
SELECT coalesce(p.subject, t.subject), 'bought ' || coalesce(p.ucredits, 0)::VARCHAR || ', transferred '
       || coalesce(t.amount, 0)::VARCHAR
FROM (SELECT 'purchase/' || purchase || '/purchase' AS subject, ucredits FROM purchases
      UNION ALL
      SELECT 'purchase/' || purchase || '/repayment', taken_ucredits FROM repayments WHERE taken_ucredits > 0
      UNION ALL
      SELECT 'adjustment/' || adjustment || '/adjustment', abs(amount_ucredits) FROM adjustments) p
FULL JOIN (SELECT transfer_id AS subject, amount FROM transfers
           WHERE reason IN ('purchase', 'repayment', 'adjustment')) t ON t.subject = p.subject
WHERE coalesce(p.ucredits, 0) <> coalesce(t.amount, 0)
UNION ALL
SELECT o.order_id, 'is ' || o.state || ', but its payment is not booked as it was ordered'
FROM payment_orders o LEFT JOIN purchases p ON p.purchase = o.provider || '/' || o.external_id
WHERE o.state IN ('completed', 'refunded')
  AND (p.user_id, p.product, p.ucredits, p.paid_pusd, p.currency, p.amount_minor)
      IS DISTINCT FROM (o.user_id, o.product, o.ucredits, o.paid_pusd, o.currency, o.amount_minor)
UNION ALL
SELECT o.order_id, 'is refunded, but nothing was repaid'
FROM payment_orders o ANTI JOIN repayments r ON r.purchase = o.provider || '/' || o.external_id
WHERE o.state = 'refunded'
UNION ALL
SELECT s.charge_id, 'is not booked as it was paid'
FROM star_payments s
LEFT JOIN purchases p ON p.purchase = 'telegram/' || s.charge_id
LEFT JOIN subscription_periods d ON d.purchase = p.purchase
WHERE s.failure = '' AND ((p.user_id, p.product, p.ucredits, p.currency, p.amount_minor, coalesce(d.days, 0))
                          IS DISTINCT FROM (s.user_id, s.product, s.ucredits, s.currency, s.stars, s.days))
   OR s.failure <> '' AND (s.ucredits <> 0 OR s.days <> 0)
UNION ALL
SELECT r.charge_id, 'is refunded, but was not repaid so'
FROM star_refunds r
LEFT JOIN star_payments s ON s.charge_id = r.charge_id
LEFT JOIN repayments b ON b.purchase = 'telegram/' || r.charge_id
WHERE s.charge_id IS NULL OR (s.failure = '' AND b.taken_ucredits IS DISTINCT FROM r.taken_ucredits)
UNION ALL
SELECT p.purchase, 'is a payment with Stars that is not there'
FROM purchases p ANTI JOIN star_payments s ON 'telegram/' || s.charge_id = p.purchase WHERE p.provider = 'telegram'
UNION ALL
SELECT d.purchase, 'its days are not what was bought and paid back'
FROM subscription_periods d
LEFT JOIN purchases p ON p.purchase = d.purchase AND p.user_id = d.user_id
LEFT JOIN repayments b ON b.purchase = d.purchase
WHERE p.purchase IS NULL OR d.days <= 0 OR d.ends_at < d.starts_at
   OR epoch_us(d.ends_at) - epoch_us(d.starts_at) > d.days * 86400000000
   OR (b.purchase IS NULL AND epoch_us(d.ends_at) - epoch_us(d.starts_at) <> d.days * 86400000000)
UNION ALL
SELECT o.order_id, 'is completed, but its days are not there'
FROM payment_orders o LEFT JOIN subscription_periods d ON d.purchase = o.provider || '/' || o.external_id
WHERE o.state IN ('completed', 'refunded') AND o.days <> coalesce(d.days, 0)
UNION ALL
SELECT c.call, 'its escrow is not there' FROM escrow_calls c ANTI JOIN escrows e ON e.escrow = c.escrow
UNION ALL
SELECT c.call, 'booked under an escrow and with a hold of its own'
FROM escrow_calls c JOIN call_holds h ON h.call = c.call
UNION ALL
SELECT c.call, 'still ' || c.state || ' although its run is ' || e.state
FROM held_calls c JOIN run_ends e ON e.run = c.run WHERE c.state IN ('held', 'metered')
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

-- From now on no statement reaches a file outside the database's own and these folders. (Takes no parameters.)
-- name: confine
SET allowed_directories = [$copies, $exports];
SET enable_external_access = false

-- (Takes no parameters.)
-- name: attach_copy
ATTACH $path AS copy

-- name: copy_database
COPY FROM DATABASE ledger TO copy

-- name: fold_copy
CHECKPOINT copy

-- name: detach_copy
DETACH copy
