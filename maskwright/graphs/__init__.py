"""Exported graphs: what a file says of itself, how it is written, opened and run."""
