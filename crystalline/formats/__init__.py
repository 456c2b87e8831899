"""Files at rest: checkpoints and the run directory around them, written atomically."""
