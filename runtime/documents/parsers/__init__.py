"""Runs in the sandbox, on files of strangers. There it finds Python's own library and the packages of the formats."""
