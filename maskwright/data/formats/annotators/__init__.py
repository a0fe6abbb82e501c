"""Formats of small labelling tools and older trainers: Datumaro, FiftyOne, VIA and others."""
