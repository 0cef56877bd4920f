"""REPORT: pictures of results."""
