"""Compiled, nogil kernels: arrays in, arrays out.  No policy, no files, no configuration.

Three storeys: primitives in C, compiled once per instruction-set level (`primitives/`);
algorithms over them and their checked Python doors (the `.pyx` files).  `isa` chooses the level
once, at import.
"""
