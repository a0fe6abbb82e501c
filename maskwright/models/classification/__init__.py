"""Classifiers: one file per family, each with its table of layers, under their published names."""
