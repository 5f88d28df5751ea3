"""Uploaded files: what they are, their text, and the passages a search index is made of."""
