"""From a file or an array to uint8 RGB pixels."""
