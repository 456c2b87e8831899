"""The transformer for one process: configuration, parameters, forward and backward."""
