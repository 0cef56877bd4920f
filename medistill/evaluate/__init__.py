"""EVALUATE: train fresh networks on a set and measure them on real films."""
