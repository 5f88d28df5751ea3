"""The searchable index of one project's code."""
