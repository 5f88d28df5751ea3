"""The conversation on Telegram: what is received, what is answered, and what must not be lost on the way."""
