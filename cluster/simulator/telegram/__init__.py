"""Stands in for Telegram: the Bot API's wire on loopback, the people behind it, and what goes wrong on the way."""
