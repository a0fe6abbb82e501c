"""Graphs of detectors: their interface, the model that an open file is, how two are compared."""
