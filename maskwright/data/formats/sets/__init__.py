"""Formats of published data sets of boxes, with the regions that they leave out of account."""
