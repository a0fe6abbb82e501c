"""LabelMe's JSON files, one for each image: polygons, rectangles, circles and masks."""
