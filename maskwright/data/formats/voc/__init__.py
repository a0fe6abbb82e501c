"""Pascal VOC (Everingham et al. 2010): XML files, lists of images, masks of objects."""
