"""Repositories of others: downloaded, kept as one sealed file each, indexed and searched."""
