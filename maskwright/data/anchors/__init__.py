"""Anchors that fit the objects of a data set: by their sizes, and by their shapes as well."""
