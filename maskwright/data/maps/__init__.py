"""Label maps: the class of every pixel of an image, stored, seen, counted and put into batches."""
