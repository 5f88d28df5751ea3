-- What reports count: plain rows without a word of a user's, written together with the events that they come from.
-- Projects from before this have none.

CREATE TABLE project_statuses (
    project  VARCHAR NOT NULL,
    user_id  VARCHAR NOT NULL,
    seq      BIGINT NOT NULL,           -- of the event; 1 opened the project
    status   VARCHAR NOT NULL,
    made_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE verification_cycles (
    project        VARCHAR NOT NULL,
    phase          BIGINT NOT NULL,     -- 0: the final review
    cycle          BIGINT NOT NULL,     -- of the phase, from 1
    verdict        VARCHAR NOT NULL CHECK (verdict IN ('pass', 'fail')),
    items_checked  BIGINT NOT NULL,
    made_at        TIMESTAMPTZ NOT NULL
);

CREATE TABLE task_steps (
    project  VARCHAR NOT NULL,
    task     VARCHAR NOT NULL,
    attempt  BIGINT NOT NULL,
    step     VARCHAR NOT NULL CHECK (step IN ('started', 'merged', 'rejected')),
    made_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE project_commits (
    project    VARCHAR NOT NULL,
    commit_id  VARCHAR NOT NULL,
    made_at    TIMESTAMPTZ NOT NULL
);

CREATE TABLE project_feedback (
    project  VARCHAR PRIMARY KEY,
    user_id  VARCHAR NOT NULL,
    score    BIGINT NOT NULL CHECK (score BETWEEN 1 AND 5),
    made_at  TIMESTAMPTZ NOT NULL
);

CREATE VIEW project_facts AS
SELECT project, any_value(user_id) AS user_id, arg_max(status, seq) AS status,
       min(made_at) FILTER (seq = 1) AS opened_at,
       max(made_at) FILTER (status IN ('completed', 'failed', 'cancelled', 'purged')) AS ended_at
FROM project_statuses GROUP BY project;

-- An attempt without an end is under way, or its project ended first.
CREATE VIEW task_attempts AS
SELECT s.project, s.task, s.attempt, e.step AS outcome, s.made_at AS started_at, e.made_at AS ended_at
FROM task_steps s
LEFT JOIN task_steps e ON e.project = s.project AND e.task = s.task AND e.attempt = s.attempt AND e.step <> 'started'
WHERE s.step = 'started';

-- Every call that the platform owes its provider for, and when that was booked.
CREATE VIEW booked_calls AS
SELECT c.call, c.user_id, c.project, c.task, c.attempt, c.task_type, c.provider, c.model, c.outcome, c.input_tokens,
       c.output_tokens, c.cost_pusd,
       CASE c.state WHEN 'lost' THEN c.cost_pusd ELSE c.excess_pusd END AS loss_pusd,
       c.charge_ucredits, c.held_at, e.ended_at AS booked_at
FROM held_calls c
JOIN call_ends e ON e.call = c.call
UNION ALL
SELECT c.call, e.user_id, e.project, '', 0, c.task_type, c.provider, c.model, c.outcome, c.input_tokens,
       c.output_tokens, c.cost_pusd, c.loss_pusd, c.charge_ucredits, c.held_at, c.settled_at
FROM escrow_calls c
JOIN escrows e ON e.escrow = c.escrow;
