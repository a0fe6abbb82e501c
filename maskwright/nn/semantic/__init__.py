"""Parts of segmenters: pyramids of rates."""
