"""Classification: the class of an image, or its classes."""
