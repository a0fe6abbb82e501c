"""Parts shared by detectors: one file per part, plain keyword arguments, no options objects."""
