"""Which models and services there are, at which price, who may call them, and which are tried for a call."""
