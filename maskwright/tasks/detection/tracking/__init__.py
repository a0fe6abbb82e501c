"""Objects followed through the frames of a video: who is who, and who crosses a line."""
