"""The crystalline structure of a vocabulary: which token derives from which, and their numbers."""

CRYSTAL = "crystal.json"  # where they are kept beside a model
