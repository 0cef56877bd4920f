"""DISTILL: trajectories become a distilled set."""
