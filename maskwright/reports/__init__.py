"""Pages and figures that a run leaves; a task hands in what they show."""
