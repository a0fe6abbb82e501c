"""Networks in the language of Darknet: a table of layers, and the modules that it becomes."""
