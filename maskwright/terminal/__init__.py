"""What the terminal shows and sends: progress, tables, signals, the state of an installation."""
