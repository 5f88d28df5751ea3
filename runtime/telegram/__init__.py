"""Telegram: what a chat's texts become there."""
