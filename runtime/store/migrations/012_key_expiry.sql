-- Null for a key that does not expire.
ALTER TABLE api_keys ADD COLUMN expires_at TIMESTAMPTZ;
