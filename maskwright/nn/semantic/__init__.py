"""Parts of segmenters."""
