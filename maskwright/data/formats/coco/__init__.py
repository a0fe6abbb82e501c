"""COCO JSON: detection, instance segmentation and keypoints."""
