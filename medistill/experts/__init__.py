"""EXPERTS: an ImageSet becomes trajectories."""
