"""Crystalline trains and runs small language models on ordinary CPUs."""

__version__ = "0.1.0"
