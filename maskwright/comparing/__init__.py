"""Models side by side: trained under one budget, scored on the same images, timed in turns."""
