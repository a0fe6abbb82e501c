"""Label maps: folders of images and of label images, and the data sets that are laid out so."""
