"""Images in, results out: the stream over a source, and the score of a data set."""
