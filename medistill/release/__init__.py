"""RELEASE: the folder that is shared, and how it is read."""
