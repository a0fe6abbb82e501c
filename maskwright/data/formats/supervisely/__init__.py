"""Supervisely's projects: meta.json, and for each image a JSON of polygons, rectangles, bitmaps."""
