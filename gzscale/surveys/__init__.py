"""Surveys: where the pixels come from."""
