"""From entries of images and annotations, whatever file they stood in, to a data set."""
