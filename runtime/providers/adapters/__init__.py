"""One adapter for each SDK."""
