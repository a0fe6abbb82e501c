"""What people run: training, validation, prediction, and the files and pictures they leave."""
