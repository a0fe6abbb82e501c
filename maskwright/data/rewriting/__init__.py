"""Data sets written anew: in another format."""
