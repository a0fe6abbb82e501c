"""What reads exported files without torch, beside the detectors that `runtime` reads itself."""
