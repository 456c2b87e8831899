"""JSON and TOML of strangers become a value or one `BadContent`, whatever they hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.untrusted import BadContent, Field, Record, parse_json, parse_toml

NASTY = {
    "brackets": "[" * 200_000,
    "tables": '{"a":' * 100_000,
    "deep": "[" * 70 + "]" * 70,
    "digits": "1" * 5_000,
    "21 digits": "1" * 21,
    "overflow": "1e999",
    "nan": "NaN",
    "infinity": "[-Infinity]",
    "cut": '{"a": ',
    "empty": "",
    "two": "1 2",
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
def test_what_is_no_json_of_ours_is_refused(text: str) -> None:
    for data in (text, text.encode()):
        with pytest.raises(BadContent) as caught:
            parse_json(data)
        assert len(str(caught.value)) < 200


def test_a_clause_says_what_is_wrong() -> None:
    for text, clause in {
        NASTY["digits"]: "it holds a number of 5,000 digits",
        NASTY["brackets"]: "it is nested too deeply",
        NASTY["deep"]: "it is nested too deeply",
        NASTY["nan"]: "it holds NaN, which JSON has not",
        NASTY["overflow"]: "it holds the number 1e999, which is not finite",
        '{"a"\n 5}': "it is not valid JSON (line 2, column 2)",
    }.items():
        with pytest.raises(BadContent) as caught:
            parse_json(text)
        assert str(caught.value) == clause
    with pytest.raises(BadContent, match="not UTF-8 at byte 1"):
        parse_json(b'"\xff"')


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_ordinary_json_is_what_it_was(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_value_or_in_bad_content(data: bytes) -> None:
    for parse in (parse_json, parse_toml):
        try:
            parse(data)
        except BadContent:
            continue


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 50_000,
        "a = " + "[" * 70 + "]" * 70,
        "a = " + "1" * 5_000,
        "a = inf",
        "a = 1e999",
        "a = nan",
        "a.b = 1\na = 2",
        "\0",
        ".".join("a" * 300) + " = 1",
        "a = 2021-99-99",
    ],
)
def test_what_is_no_toml_of_ours_is_refused(text: str) -> None:
    with pytest.raises(BadContent):
        parse_toml(text.encode())


STEP = Field("step", int, 0, 10**12)


@pytest.mark.parametrize("value", [-1, 10**13, 1.0, True, "1", None, [], {}])
def test_a_field_of_another_type_or_range_is_refused(value: Any) -> None:
    with pytest.raises(BadContent, match="'step' is"):
        Record(STEP).check({"step": value})


def test_a_field_may_be_missing_or_null_where_its_row_says_so() -> None:
    record = Record(
        STEP,
        Field("loss", float, -1e6, 1e6, nullable=True),
        Field("sha256", str, 64, 64, "[0-9a-f]*", optional=True),
    )
    assert record.check({"step": 1, "loss": None}) == {"step": 1, "loss": None}
    assert record.check({"step": 1, "loss": 2, "sha256": "a" * 64})["loss"] == 2
    for wrong in ({"loss": None}, {"step": 1, "loss": 1e7}, [1], "step", None):
        with pytest.raises(BadContent):
            record.check(wrong)
    with pytest.raises(BadContent, match="'sha256' is 'G"):
        record.check({"step": 1, "loss": 0.5, "sha256": "G" * 64})


def test_a_wrong_value_is_shown_short_and_safe() -> None:
    with pytest.raises(BadContent) as caught:
        Record(STEP).check({"step": "\x1b[2J" + "x" * 10_000_000})
    assert len(str(caught.value)) < 200
    assert "\x1b" not in str(caught.value)


def test_the_items_of_a_list_are_checked() -> None:
    record = Record(Field("dropped", list, 0, 3, items=lambda n: isinstance(n, int)))
    assert record.check({"dropped": [1, 2]})["dropped"] == [1, 2]
    for wrong in ([1, "2"], [1, 2, 3, 4]):
        with pytest.raises(BadContent):
            record.check({"dropped": wrong})
