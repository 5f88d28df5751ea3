"""Accounts: who somebody is, what they may do, and the codes that change it."""
