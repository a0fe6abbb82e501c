"""What a validation or a training of detectors leaves to people: numbers, figures and a page."""
