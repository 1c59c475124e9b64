"""Catalogs: reading, describing, partitioning and releasing tables of sky objects."""
