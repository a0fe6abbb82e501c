"""How fast: two sides in turns, on the same images with the same weights."""
