"""Measures of detections against ground truth: COCO, VOC, and what stands behind an AP."""
