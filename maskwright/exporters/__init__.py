"""Whole detectors as one graph, from pixels to instances, in files that run without their code."""
