"""From regions of a map to features of a fixed size."""
