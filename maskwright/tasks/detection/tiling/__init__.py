"""Objects of a large image out of those of its tiles: which are one, and what they look like."""
