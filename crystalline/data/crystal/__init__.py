"""The crystalline structure of a vocabulary: which token derives from which, and their numbers."""
