"""What the machine is: features of its CPU, cores, caches and memory that this process may use."""
