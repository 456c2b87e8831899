"""Stop strings, against a twin that looks at the text character by character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.errors import UsageError
from crystalline.infer.stops import StopFilter


def test_the_stop_that_came_is_named():
    stops = StopFilter(["END", "N", "ZZ"])
    stops.push("abcE")
    assert stops.found == ""
    stops.push("ND")
    assert (stops.stopped, stops.found) == (True, "N")


def twin(text, stops):
    """Return (what may be shown, whether a stop came)."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(
    st.lists(st.text("ab", max_size=4), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_the_text_ends_before_the_first_stop_however_it_is_cut(pieces, stops):
    whole = "".join(pieces)
    expected, stopped = twin(whole, stops)
    stream = StopFilter(stops)
    shown = ""
    for piece in pieces:
        shown += stream.push(piece)
        assert expected.startswith(shown)  # nothing of a stop, nothing after it
    shown += stream.flush()
    assert (shown, stream.stopped) == (expected, stopped)


def test_only_what_could_begin_a_stop_is_held_back():
    stream = StopFilter(["\nUser:", "###"])
    assert stream.push("hello\nUs") == "hello"
    assert stream.push("ually ##") == "\nUsually "
    assert stream.push("x") == "##x"


def test_nothing_comes_after_a_stop():
    stream = StopFilter(["b"])
    assert [stream.push("ab"), stream.push("c"), stream.flush()] == ["a", "", ""]


def test_an_empty_stop_is_an_error():
    with pytest.raises(UsageError, match="--stop"):
        StopFilter(["x", ""])
