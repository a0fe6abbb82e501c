"""What is kept on the disk: checkpoints, run folders, files that others published."""
