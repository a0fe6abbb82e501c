"""Models behind HTTP: a service for programs, a page for people, labels of what they correct."""
