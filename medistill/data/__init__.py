"""LOAD: files become an ImageSet."""
