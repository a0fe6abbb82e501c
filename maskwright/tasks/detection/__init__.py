"""Detection and instance segmentation: boxes, masks and keypoints of objects."""
