"""Localizers: where the one object of an image is, by a box with its class or by keypoints."""
