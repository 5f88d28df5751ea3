"""A server that speaks a model provider's wire format and plays scenarios, so nothing needs a paid key."""
