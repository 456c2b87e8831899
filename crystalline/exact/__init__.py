"""Exact mathematics: integers, fixed point, primes and lattices, on compiled kernels."""

from crystalline.exact.array import BigFixedArray
from crystalline.exact.clock import (
    clock_number,
    clock_position,
    clock_positions,
    is_prime_hour,
    prime_clock_position,
)
from crystalline.exact.gcd_arrays import (
    coprime_array,
    gcd_array,
    gcd_matrix,
    gcd_similarity,
    gcd_similarity_matrix,
    lcm_array,
)
from crystalline.exact.integer import BigInt
from crystalline.exact.prime_cache import PrimeCache
from crystalline.exact.primes import (
    are_prime,
    count_primes,
    is_prime,
    is_strong_lucas_probable_prime,
    is_strong_probable_prime,
    iter_primes,
    next_prime,
    nth_prime,
    previous_prime,
    prime_array,
    prime_pi,
    primorial,
)
from crystalline.exact.spiral import (
    spiral_distance_squared,
    spiral_distances_squared,
    spiral_number,
    spiral_numbers,
    spiral_place,
    spiral_places,
)

__all__ = [
    "BigFixedArray",
    "BigInt",
    "PrimeCache",
    "are_prime",
    "clock_number",
    "clock_position",
    "clock_positions",
    "coprime_array",
    "count_primes",
    "gcd_array",
    "gcd_matrix",
    "gcd_similarity",
    "gcd_similarity_matrix",
    "is_prime",
    "is_prime_hour",
    "is_strong_lucas_probable_prime",
    "is_strong_probable_prime",
    "iter_primes",
    "lcm_array",
    "next_prime",
    "nth_prime",
    "previous_prime",
    "prime_array",
    "prime_clock_position",
    "prime_pi",
    "primorial",
    "spiral_distance_squared",
    "spiral_distances_squared",
    "spiral_number",
    "spiral_numbers",
    "spiral_place",
    "spiral_places",
]
