"""From a name, a file or a run folder to a model with its weights."""
