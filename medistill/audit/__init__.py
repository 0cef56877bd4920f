"""AUDIT: one attack or check a file, each with its controls."""
