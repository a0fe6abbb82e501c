"""Parts of detectors: anchors, matching, sampling, proposals, heads on regions."""
