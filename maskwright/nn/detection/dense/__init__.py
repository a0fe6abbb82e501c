"""Heads that judge every place of a map: detectors without regions, and what their losses count."""
