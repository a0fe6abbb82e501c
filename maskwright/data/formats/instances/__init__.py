"""Label images of instances: a number for each object, or a mask file for each."""
