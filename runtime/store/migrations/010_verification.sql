-- What a verdict found, and how long it took. Cycles from before this have neither; model, tokens and cost of a cycle are
-- those of its calls.
ALTER TABLE verification_cycles ADD COLUMN findings BIGINT;
ALTER TABLE verification_cycles ADD COLUMN duration_ms BIGINT;
