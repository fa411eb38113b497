"""Sweeps: many runs of one configuration with some of its keys varied."""
