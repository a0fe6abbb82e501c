"""Segmenters: a class for every pixel; one file a family, from FCN to DeepLabv3+."""
