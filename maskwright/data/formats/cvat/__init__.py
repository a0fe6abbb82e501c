"""CVAT's XML: images or a video, with its own run lengths, rotation and tracks."""
