"""Calls of crystalline.exact that last seconds, and a nursery of processes that interrupts them.

    python -m tests.exact.long_calls WAIT_S NAME...

imports the library once, forks a child for each call, some at once, sends each SIGINT when it has
computed for WAIT_S seconds, and prints a line of JSON for each: what it said, how much processor
time passed from the signal to the exception, and the longest stretch in which the handler of a
timer was not heard before.  Processor time, so that it does not matter how busy the machine is.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from crystalline import exact
from crystalline._kernels.lattice import enumerate as enumeration
from crystalline.exact import factoring, lattice

AT_ONCE = 3
TICK_S = 0.01
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

# name: what is made before, and the call
CALLS = {
    # primes: tables that are read out of order, sieves, arrays of words
    "prime_pi, tables": ("", "exact.prime_pi(10**18)"),
    "prime_pi, sieving": ("", "exact.prime_pi(10**16)"),
    "nth_prime": ("", "exact.nth_prime(10**16)"),
    "count_primes, to 2^64": ("", "exact.count_primes(2**64 - 10**12, 2**64)"),
    "count_primes, by tests": ("", "[exact.count_primes(2**63, 2**63 + 10**7) for _ in R]"),
    "prime_array": ("", "exact.prime_array(10**14, 10**14 + 10**10)"),
    "PrimeCache": ("", "exact.PrimeCache(2 * 10**10)"),
    "is_prime": ("n = 2**44497 - 1", "exact.is_prime(n)"),
    "next_prime": ("n = 10**4000", "exact.next_prime(n)"),
    "primorial": ("", "exact.primorial(10**8)"),
    "are_prime": ("x = same(2**64 - 59, 3 * 10**7)", "exact.are_prime(x)"),
    "factor": ("", "exact.factor((10**60 + 7) * (10**61 + 3), digits=40)"),
    "factor, one curve": (
        "n = (10**200 + 357) * (10**300 + 331); p = exact.prime_array(10**7)",
        "factoring._curve(n, 11, p, 10**6)",
    ),
    "factor, large": ("n = 3**10**6 + 2", "exact.factor(n)"),
    "factor_arrays": ("x = same((2**32 - 5) * (2**32 - 17), 10**6)", "exact.factor_arrays(x)"),
    "factor_signatures": (
        "x = same((2**32 - 5) * (2**32 - 17), 10**6)",
        "exact.factor_signatures(x)",
    ),
    "divisors": (
        "f = exact.factor(math.prod(p**2 for p in exact.prime_array(40).tolist()) * 2**20)",
        "[exact.divisors(f) for _ in R]",
    ),
    "gcd_array": ("x = fibonacci(3 * 10**7)", "[exact.gcd_array(x, x[::-1]) for _ in R]"),
    "gcd_matrix, wide": ("x = fibonacci(2 * 10**7)", "exact.gcd_matrix([2**63 - 25] * 9, x)"),
    "gcd_similarity_matrix": ("x = fibonacci(2 * 10**7)",
                              "exact.gcd_similarity_matrix([2**63 - 25] * 9, x)"),
    "gcd_array, of a list": ("x = [2**63 - 25] * 3 * 10**7", "exact.gcd_array(x, x)"),
    "spiral_places": ("x = same(2**62, 2 * 10**7)", "[exact.spiral_places(x) for _ in R]"),
    "spiral_distances": (
        "x = same(2**60, 2 * 10**7)",
        "[exact.spiral_distances_squared(x, 7) for _ in R]",
    ),
    # integers: every algorithm, and the linear passes around it
    "product": ("a = big(2 * 10**9)", "a * (a >> 1)"),
    "product, short factor": ("a, b = big(10**9), big(10**4)", "[a * b for _ in R]"),
    "product, unequal": ("a, b = big(2 * 10**9), big(10**7)", "a * b"),
    "square": ("a = big(2 * 10**9)", "a * a"),
    "quotient": ("a, b = big(10**9), big(5 * 10**8)", "a // b"),
    "quotient, short": ("a, b = big(2 * 10**9), big(2000)", "[a % b for _ in R]"),
    "quotient by a word": ("a = big(2 * 10**9)", "[a // 10**18 for _ in R]"),
    "quotient of a word": ("a = big(2 * 10**9)", "[a // (a >> 1500) for _ in R]"),
    "power": ("", "exact.BigInt(3) ** (15 * 10**8)"),
    "powmod": ("a, b = big(10**6), big(10**6 - 7)", "pow(a, b, b)"),
    "powmod, even": ("a, b = big(10**6), big(10**6 - 7)", "pow(a, b, b + 1)"),
    "powmod, 2^k": ("a = big(10**7)", "pow(a, a, exact.BigInt(1) << 10**7)"),
    "inverse": ("a, b = big(10**8), big(10**8 - 7)", "exact.invert(a, b)"),
    "gcd": ("a, b = big(10**8), big(10**8 - 7)", "exact.gcd(a, b)"),
    "gcd of many": ("x = [6] * 10**7", "[exact.gcd(*x) for _ in R]"),
    "xgcd": ("a, b = big(10**8), big(10**8 - 7)", "exact.xgcd(a, b)"),
    "jacobi": ("a, b = big(8 * 10**6), big(8 * 10**6 - 7)", "exact.jacobi(a, b)"),
    "isqrt": ("a = big(2 * 10**9)", "exact.isqrt_rem(a)"),
    "iroot": ("a = big(10**9)", "exact.iroot(a, 3)"),
    "is_square": ("a = exact.BigInt(1) << 2 * 10**9", "[exact.is_square(a) for _ in R]"),
    "is_power": ("a = exact.BigInt(3) ** (5 * 10**6)", "exact.is_power(a)"),
    "remove": ("a = exact.BigInt(3) ** 10**8", "exact.remove(a, 3)"),
    "str": ("a = big(5 * 10**8)", "str(a)"),
    "hexadecimal": ("a = big(2 * 10**9)", "[a.digits(16) for _ in R]"),
    "parsing": ("s = '7' * 2 * 10**8", "exact.BigInt(s)"),
    "parsing, hexadecimal": ("s = '7' * 5 * 10**8", "[exact.BigInt(s, 16) for _ in R]"),
    "parsing, underscores": ("s = '7_' * 10**8 + '7'", "exact.BigInt(s)"),
    "parsing, other digits": ("s = '\u0667' * 5 * 10**7", "exact.BigInt(s)"),
    "bytes": (
        "a = big(2 * 10**9)",
        "[exact.BigInt.from_bytes(a.to_bytes(3 * 10**8, 'big'), 'big') for _ in R]",
    ),
    "sums": ("a = big(2 * 10**9)", "[a + a - (a << 3) for _ in R]"),
    # numbers of any precision: constants, series, halving, bit-burst, roots, decimals
    "pi": ("", "exact.pi(3 * 10**8)"),
    "e": ("", "exact.e(5 * 10**8)"),
    "ln2": ("", "exact.ln2(10**8)"),
    "exp": ("x = exact.sqrt(2, 10**7)", "exact.exp(x, 10**7)"),
    "exp, halving": ("x = exact.sqrt(2, 180000)", "[exact.exp(x) for _ in R]"),
    "log": ("x = exact.sqrt(2, 10**7)", "exact.log(x, 10**7)"),
    "sin": ("x = exact.sqrt(2, 10**7)", "exact.sin(x, 10**7)"),
    "sin, reduction": ("x = exact.BigFixed(big(3 * 10**8))", "exact.sin(x, 64)"),
    "atan": ("x = exact.sqrt(2, 10**7)", "exact.atan(x, 10**7)"),
    "power, real": ("x = exact.sqrt(2, 5 * 10**6)", "exact.power(x, x, 5 * 10**6)"),
    "erf": ("", "exact.erf(20, 10**6)"),
    "sqrt": ("", "exact.sqrt(2, 10**9)"),
    "root": ("", "exact.root(2, 7, 10**8)"),
    "decimals": ("x = exact.sqrt(2, 10**8)", "[str(x) for _ in R]"),
    "of decimals": ("s = '0.' + '7' * 10**8", "exact.BigFixed(s, 3 * 10**8)"),
    "of an exponent": ("", "exact.BigFixed('1e-200000000', 7 * 10**8)"),
    "fraction": ("x = exact.sqrt(2, 10**8)", "[x.as_fraction() for _ in R]"),
    # arrays of numbers of a fixed width, and what NumPy does for them
    **{
        f"array {name}": ("a = array(5 * 10**6)", f"[a.{name}() for _ in R]")
        for name in ("exp", "log", "sin", "cos", "atan", "sqrt")
    },
    "array exp, wide": ("a = array(3000, 4096, 4000)", "[a.exp() for _ in R]"),
    "array product": ("a = array(5 * 10**6)", "[a * a for _ in R]"),
    "array quotient": ("a = array(5 * 10**6)", "[a / a for _ in R]"),
    "array matmul": ("a = array(10**6).reshape(1000, 1000)", "[a @ a for _ in R]"),
    "array matmul, tall": (
        "a, b = array(5 * 10**6).reshape(-1, 10), array(1000).reshape(10, -1)",
        "a @ b",
    ),
    "array matmul, deep": ("a = array(5 * 10**6).reshape(10, -1)", "[a @ a.T for _ in R]"),
    "array matmul, wide": ("a = array(10**5, 4096, 2000).reshape(10, -1)", "[a @ a.T for _ in R]"),
    "array sums": ("a = array(5 * 10**6)", "[abs(-a).sum() + a.dot(a) for _ in R]"),
    "array order": ("a = array(5 * 10**6)", "[(a.argmax(), a == a) for _ in R]"),
    "array argsort": ("a = array(10**7)", "a.argsort()"),
    "array rescaled": ("a = array(5 * 10**6)", "[a.rescaled(320, 200) for _ in R]"),
    "array to doubles": ("a = array(10**7)", "[a.to_floats() for _ in R]"),
    "array of doubles": ("x = np.ones(10**7)", "[exact.BigFixedArray.of(x) for _ in R]"),
    "array of a list": ("x = [0.1] * 3 * 10**7", "exact.BigFixedArray.of(x)"),
    "array of strings": ("x = ['0.1'] * 10**7", "exact.BigFixedArray.of(x)"),
    "array to strings": ("a = array(10**6)", "a.to_strings()"),
    "array copies": (
        "a = array(9 * 10**6).reshape(3000, 3000)",
        "[a.T.copy() == a.T.reshape(9000, 1000).reshape(3000, 3000) for _ in R]",
    ),
    # lattices
    "lll": ("b = random_lattice(100, 2**400)", "exact.lll(b)"),
    "lll, huge entries": ("b = random_lattice(16, 2**50000)", "exact.lll(b)"),
    "lll, dependent": (
        "b = random_lattice(60, 2**200); b.append([sum(x) for x in zip(*b)])",
        "exact.lll(b, transformation=True).certificate().verify()",
    ),
    "bkz": ("b = random_lattice(90)", "lattice.bkz(b, 40)"),
    "shortest_vector": ("b = random_lattice(80)", "lattice.shortest_vector(b)"),
    "shortest_vector, large": (
        "b = [[x << 80 for x in row] for row in random_lattice(66)]",
        "lattice.shortest_vector(b)",
    ),
    "closest_vector": ("b = random_lattice(80)", "lattice.closest_vector(b, range(80))"),
    "closest_vectors": (
        "s = lattice.ClosestVectorSearch(random_lattice(10)); t = rows(10**6, 10)",
        "s.closest_to_all(t)",
    ),
    "nearest planes": (
        "p = exact.NearestPlane(random_lattice(60)); t = [list(range(60))] * 30000",
        "p.nearest_many(t)",
    ),
    "nearest planes, huge": (
        "p = exact.NearestPlane(random_lattice(30)); t = [[1 << 3 * 10**5] * 30] * 100",
        "p.nearest_many(t)",
    ),
    "Gram-Schmidt": (
        "b = exact.LatticeBasis(random_lattice(600))",
        "lattice.float_gram_schmidt(b, 1e-30)",
    ),
    "Gram matrix": ("x = np.ones((1500, 1500), np.int64)", "enumerate.gram(x)"),
    "orthogonal": (
        "x, y = enumerate.gram(np.eye(400, dtype=np.int64))",
        "enumerate.Enumerator(x, y)",
    ),
    "determinant": ("b = exact.LatticeBasis(random_basis(200, 64))", "b.determinant()"),
    "entries": ("b = random_lattice(1500)", "[exact.LatticeBasis(b) for _ in R]"),
}  # fmt: skip


def big(bits: int) -> exact.BigInt:
    """Return an odd number of about so many bits, random where that takes no time to make."""
    if bits <= 10**8:
        data = np.random.default_rng(bits).bytes(bits // 8)
        return exact.BigInt.from_bytes(b"\1" + data + b"\1", "big")
    return exact.BigInt.from_bytes(b"Some number" * (bits // 88) + b"\1", "little")


def same(value: int, count: int) -> np.ndarray[Any, Any]:
    return np.full(count, value, np.uint64)


def fibonacci(count: int) -> np.ndarray[Any, Any]:
    """Return neighboring Fibonacci numbers: Euclid's algorithm takes longest for those."""
    return np.tile(np.array([7540113804746346429, 4660046610375530309], np.uint64), count // 2)


def array(count: int, width_bits: int = 256, frac_bits: int = 192) -> exact.BigFixedArray:
    a = exact.BigFixedArray(count, width_bits, frac_bits)
    a.limbs[:] = np.uint64(0x0123456789ABCDEF)
    a.limbs[:, frac_bits // 64 :] = 0
    a.limbs[:, 0] += np.arange(count, dtype=np.uint64)[::-1] * np.uint64(0x9E3779B97F4A7C15)
    return a


def rows(count: int, width: int) -> np.ndarray[Any, Any]:
    return np.arange(count * width).reshape(count, width) % 10**6


def random_basis(n: int, bits: int) -> list[list[int]]:
    source = random.Random(n)
    return [[source.getrandbits(bits) for _ in range(n)] for _ in range(n)]


def random_lattice(n: int, q: int = 2**20) -> list[list[int]]:
    """Return the basis of a random q-ary lattice: its rows are as long as they can be."""
    source, half = random.Random(n), n // 2
    rows = [[q * (i == j) for j in range(n)] for i in range(half)]
    for i in range(half, n):
        rows.append([source.randrange(q) for _ in range(half)] + [0] * (n - half))
        rows[i][i] = 1
    return rows


class Listener:
    """What a child hears: a timer all the time, and in the end SIGINT."""

    def __init__(self) -> None:
        self.last_s = self.gap_s = 0.0

    def tick(self, _number: int, _frame: FrameType | None) -> None:
        now_s = time.process_time()
        self.gap_s = max(self.gap_s, now_s - self.last_s)
        self.last_s = now_s

    def run(self, prepare: str, call: str, ready: int) -> str:
        """Make the operands, write a byte to `ready`, begin; return what came of it as JSON."""
        modules = (enumeration, exact, factoring, lattice, math)
        names = {**globals(), "R": range(10**9)}
        names |= {module.__name__.rpartition(".")[2]: module for module in modules}
        exec(prepare, names)
        code = compile(call, "call", "eval")
        signal.signal(signal.SIGALRM, self.tick)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(ready, b"r")
        self.last_s = time.process_time()
        try:
            signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
            eval(code, names)
            said = "done"
        except KeyboardInterrupt:
            said = "stopped"
        stopped_s = time.process_time()
        signal.setitimer(signal.ITIMER_REAL, 0)
        right = exact.gcd(12, 18) == 6 and exact.exp(0, 64) == 1 and exact.prime_pi(100) == 25
        return json.dumps(
            {"said": said, "works": right, "stopped_s": stopped_s, "gap_s": self.gap_s}
        )


class Child:
    """A process with one of CALLS."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent_s: float | None = None
        self.begun_s: float | None = None
        self.out, end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.write(end, Listener().run(*CALLS[name], end).encode())
            finally:  # or the child would go on as if it were the nursery
                if sys.exc_info()[0] is not None:
                    traceback.print_exc()
                os._exit(0)
        os.close(end)
        os.set_blocking(self.out, False)

    def processor_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND

    def step(self, wait_s: float) -> dict[str, Any] | None:
        """Interrupt it when it is time; return its report when it has ended."""
        try:
            text = os.read(self.out, 4096) or b'{"said": "nothing"}'
        except BlockingIOError:
            text = b""
        if text.startswith(b"r"):
            self.begun_s = self.processor_s()
            text = text[1:]
        if text:
            report = json.loads(text)
            os.waitpid(self.pid, 0)
            os.close(self.out)
            if self.sent_s is not None and "stopped_s" in report:
                report["late_s"] = report["stopped_s"] - self.sent_s
            return {"name": self.name, **report}
        if self.begun_s is not None and self.sent_s is None:
            now_s = self.processor_s()
            if now_s - self.begun_s >= wait_s:
                self.sent_s = now_s
                os.kill(self.pid, signal.SIGINT)
        return None


def interrupted(names: list[str], wait_s: float) -> Iterator[dict[str, Any]]:
    """Yield the reports of these calls, as they end."""
    waiting = list(reversed(names))
    running: list[Child] = []
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            running.append(Child(waiting.pop()))
        time.sleep(0.005)
        for child in list(running):
            report = child.step(wait_s)
            if report is not None:
                running.remove(child)
                yield report


def main() -> None:
    """Print the reports."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for report in interrupted(sys.argv[2:] or list(CALLS), float(sys.argv[1])):
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
