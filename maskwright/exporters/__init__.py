"""Export of whole models, each file checked against the model before it appears."""
