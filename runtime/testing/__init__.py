"""Fakes of every port, kept honest by the contract tests."""
