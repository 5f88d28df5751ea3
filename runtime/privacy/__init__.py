"""A person's own data, for themselves."""
