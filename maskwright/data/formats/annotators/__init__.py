"""Formats of small labelling tools and of older trainers: VIA, CreateML, RetinaNet's tables."""
