"""Detectors: one file per family, assembled from the parts in `maskwright.nn`."""
