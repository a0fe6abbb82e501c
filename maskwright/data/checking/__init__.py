"""What stands between a data set and a training, found before it starts."""
