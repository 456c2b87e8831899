"""The training engine: Node Zero, the spheres, and the step protocol between them."""
