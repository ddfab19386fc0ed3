"""--key: JMESPath, several parts, and what is no key."""

from __future__ import annotations

from typing import Any

import pytest

from workpool.cli.keys import KeyExpression, NoKey
from workpool.cli.output import Complaint


@pytest.mark.parametrize(
    ("expression", "event", "key"),
    [
        ("a", {"a": 1}, 1),
        ("a.b", {"a": {"b": "x"}}, "x"),
        ("a, b", {"a": 1, "b": 2}, (1, 2)),
        ("a.b,c[0],d", {"a": {"b": 1}, "c": [2], "d": False}, (1, 2, False)),
        ("[a, b]", {"a": 1, "b": 2}, (1, 2)),
        ("a", {"a": [1, [2, [3]]]}, (1, (2, (3,)))),
        ("join(',', [a, b])", {"a": "x", "b": "y"}, "x,y"),
        ("join(',', [a, b]),a", {"a": "x", "b": "y"}, ("x,y", "x")),
        ("{x: a, y: b}.x,b", {"a": 1, "b": 2}, (1, 2)),
        ('"a,b".c', {"a,b": {"c": 1}}, 1),
        ('a[?b == `"1,2"`],c', {"a": [], "c": 1}, ((), 1)),
        ("a || 'x,y'", {}, "x,y"),
        ("'it\\'s, so',a", {"a": 1}, ("it's, so", 1)),
        ("@", "plain", "plain"),
        ("a", {"a": ""}, ""),
        ("length(a)", {"a": "four"}, 4),
    ],
)
def test_an_expression_finds_the_key(expression: str, event: Any, key: object) -> None:
    found = KeyExpression(expression)(event)
    assert found == key
    assert type(found) is type(key)
    hash(found)


@pytest.mark.parametrize(
    ("expression", "event", "reason"),
    [
        ("a", {}, "no key: a is null or missing"),
        ("a", None, "no key: a is null or missing"),
        ("a.b", {"a": {"b": None}}, "no key: a.b is null or missing"),
        ("a , b.c", {"a": 1}, "no key: b.c is null or missing"),
        ("a", {"a": {"b": 1}}, "no key: a is an object, and cannot be a key"),
        ("a", {"a": [[{}]]}, "no key: a is an object, and cannot be a key"),
        ("length(a)", {"a": 1}, "no key: length(a): In function length(), invalid type for value: 1"),
    ],
)
def test_an_event_without_a_key_says_which_part_and_why(expression: str, event: Any, reason: str) -> None:
    with pytest.raises(NoKey) as caught:
        KeyExpression(expression)(event)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "expression",
    ["", " ", "a.", "a,,b", ",", "a b", "a-b", "f(", "'abc", "nope(a)", "length(a, b)", "a,b.nope()", "[" * 5000],
)
def test_a_bad_expression_is_one_line(expression: str) -> None:
    with pytest.raises(Complaint) as caught:
        KeyExpression(expression)
    assert str(caught.value).startswith(f"the key {expression!r} is not JMESPath: ")
    assert "\n" not in str(caught.value)
