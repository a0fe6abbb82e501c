"""Label Studio's JSON: percent of the image, rotation, brush strokes in its own code."""
