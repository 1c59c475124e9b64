"""Prefect flows: the only place where Prefect is imported."""
