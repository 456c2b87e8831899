"""Where the spheres of the tree lie: the face-centered cubic cluster, at every scale the same.

A sphere of radius R holds thirteen of radius R/3: one around its own center, which is the node
itself as a control, and its twelve children at the distance 2R/3 in the directions (±1, ±1, 0)/√2
and their permutations.  Each child touches the one in the middle, the sphere that holds them all,
and four of its siblings.  No arrangement has twelve that touch the middle and each other.

A node is named by its path: the positions, 0 to 11, on the way down from Node Zero, whose path is
empty.  The numbers run like those of a clock: seen along the axis (-1, -1, -1), position k lies
at k o'clock.  The even ones lie in the plane of the dial, 1, 5 and 9 above it, 3, 7 and 11 below;
k and k + 6 are opposite.

Lengths are in units of Node Zero's radius.  All is integers and fractions: no float decides
anything, and the order in which work is looked for is the same on every machine.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import NamedTuple

from crystalline.ipc.positions import POSITIONS

Vector = tuple[int, int, int]
Path = tuple[int, ...]

# Squared lengths are twice those of these integers: a direction is one of them divided by √2.
_DIRECTIONS: tuple[Vector, ...] = (
    (1, -1, 0), (1, 0, 1), (0, -1, 1), (-1, -1, 0), (-1, 0, 1), (0, 1, 1),
    (-1, 1, 0), (-1, 0, -1), (0, 1, -1), (1, 1, 0), (1, 0, -1), (0, -1, -1),
)  # fmt: skip


class Center(NamedTuple):
    """The center of a sphere: √2 · `vector` / `scale`, exactly."""

    vector: Vector
    scale: int


def kissing_direction(position: int) -> Vector:
    """Return √2 times the direction from a node's center to its child's, as integers.

    >>> kissing_direction(3), kissing_direction(9)
    ((-1, -1, 0), (1, 1, 0))
    """
    if not 0 <= position < POSITIONS:
        raise ValueError(f"position is {position}, positions are 0 to {POSITIONS - 1}")
    return _DIRECTIONS[position]


@cache
def siblings_in_contact(position: int) -> Path:
    """Return the four positions whose spheres touch the one at `position`, in ascending order.

    >>> siblings_in_contact(0), siblings_in_contact(3)
    ((1, 2, 10, 11), (2, 4, 7, 11))
    """
    mine = kissing_direction(position)
    # At an angle of 60 degrees: at a distance of two radii.
    return tuple(k for k, other in enumerate(_DIRECTIONS) if _dot(mine, other) == 1)


@cache
def by_distance(position: int) -> tuple[int, ...]:
    """Return all positions, by their distance from one: itself, the four in contact, the others.

    >>> by_distance(0)[:5] == (0, *siblings_in_contact(0)), by_distance(0)[-1]
    (True, 6)
    """
    near = sorted(range(POSITIONS), key=lambda other: (distance2((position,), (other,)), other))
    return tuple(near)


@cache
def work_order(group: int, place: int) -> tuple[int, ...]:
    """Return the positions whose work a leaf takes: its own, then those that belong to its place's
    siblings, nearest first.

    There may be a sibling at every place, and each has another group: so all positions come.

    >>> work_order(5, 5) == by_distance(5), work_order(7, 5)[:2]
    (True, (7, 3))
    """
    return tuple((group - place + other) % POSITIONS for other in by_distance(place % POSITIONS))


def center(path: Path) -> Center:
    """Return the center of a sphere; that of Node Zero is the origin.

    >>> center((3, 7))
    Center(vector=(-4, -3, -1), scale=9)
    """
    x = y = z = 0
    for position in path:
        dx, dy, dz = kissing_direction(position)
        x, y, z = 3 * x + dx, 3 * y + dy, 3 * z + dz
    return Center((x, y, z), 3 ** len(path))


def radius(level: int) -> Fraction:
    """Return the radius of the spheres of a level; Node Zero is level 0.

    >>> radius(0), radius(2)
    (Fraction(1, 1), Fraction(1, 9))
    """
    return Fraction(1, 3**level)


def distance2(a: Path, b: Path) -> Fraction:
    """Return the square of the distance between two centers.

    >>> distance2((3,), (9,)), distance2((3, 7), (3,))
    (Fraction(16, 9), Fraction(4, 81))
    """
    (ours, scale), (theirs, other) = center(a), center(b)
    between = [x * other - y * scale for x, y in zip(ours, theirs, strict=True)]
    return Fraction(2 * sum(x * x for x in between), (scale * other) ** 2)


def touching(a: Path, b: Path) -> bool:
    """Return whether two spheres touch, beside each other or one within the other.

    >>> touching((3,), (4,)), touching((3,), (9,)), touching((), (5,)), touching((5,), (5,))
    (True, False, True, False)
    """
    between = distance2(a, b)
    ours, theirs = radius(len(a)), radius(len(b))
    return a != b and between in ((ours + theirs) ** 2, (ours - theirs) ** 2)


def linked(a: Path, b: Path) -> bool:
    """Return whether two nodes may send each other messages: parent and child, or
    siblings in contact.

    Spheres of different parents may touch too, but have nothing to tell each other.

    >>> linked((), (5,)), linked((5, 3), (5, 4)), linked((5, 3), (5, 9)), linked((), (5, 5))
    (True, True, False, False)
    """
    if len(a) > len(b):
        a, b = b, a
    if not b:
        return False
    if len(a) < len(b):
        return b[:-1] == a
    return a[:-1] == b[:-1] and b[-1] in siblings_in_contact(a[-1])


def group(path: Path) -> int:
    """Return the symmetry group whose work a node prefers.

    That is the position itself for a child of Node Zero; further down, the node's position and
    that of its ancestor at level 1 are added, modulo 12.

    >>> group((7,)), group((7, 6)), group((7, 2, 6))
    (7, 1, 1)
    """
    if not path:
        raise ValueError("Node Zero belongs to no symmetry group")
    return path[0] if len(path) == 1 else (path[0] + path[-1]) % POSITIONS


def _dot(a: Vector, b: Vector) -> int:
    return sum(x * y for x, y in zip(a, b, strict=True))
