"""Arrays of fixed-width fixed-point numbers: elements of L limbs, checked doors, no GIL."""
