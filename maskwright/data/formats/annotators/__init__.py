"""Formats of small labelling tools and older trainers: Datumaro, VIA, CreateML, RetinaNet."""
