"""Video files, streams and cameras: read, looked at frame by frame, written with what was found."""
