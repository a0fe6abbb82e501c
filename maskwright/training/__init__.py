"""Training of any model: one loop, its options, its checkpoints, and how it goes on."""
