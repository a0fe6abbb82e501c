"""YOLO's text files: boxes, segments, keypoints and oriented boxes, in fractions of the image."""
