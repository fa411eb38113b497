"""A reward learned from labelled frames: `run.algorithm: reward`."""
