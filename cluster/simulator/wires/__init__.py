"""The three wire formats: how each asks, answers, streams, refuses and tells its limits."""
