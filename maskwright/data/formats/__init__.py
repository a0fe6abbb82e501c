"""Formats of annotated images: one folder or file each, reading and writing side by side."""
