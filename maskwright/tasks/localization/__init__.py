"""Localization: the one object of an image, by class and box or by keypoints."""
