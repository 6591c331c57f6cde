"""Maintenance of a base directory: retention, export and import, backup, diagnosis."""
