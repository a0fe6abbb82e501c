"""Tables of images: labels, boxes and keypoints in CSV files."""
