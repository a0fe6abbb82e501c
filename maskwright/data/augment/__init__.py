"""What chance changes in training images: colours, and which part of an image is seen."""
