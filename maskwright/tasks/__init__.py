"""What differs between the tasks, and nothing else: one folder a task."""
