import json
import math
from typing import Any

import pytest

from nnood import json_fields

CONTENT: dict[str, Any] = json.loads(
    '{"text": "a", "yes": true, "whole": 3, "half": 0.5, "huge": 1' + "0" * 400 + ', "nothing": null, "list": [1, 2.5],'
    ' "named": {"a": 1, "b": 0.5}, "words": {"a": "x"}, "parts": [{"n": 1}, {"n": 2}], "nan": NaN}'
)
READERS = {
    "text": (lambda key: json_fields.typed(CONTENT, key, str), {"text": "a"}),
    "bool": (lambda key: json_fields.typed(CONTENT, key, bool), {"yes": True}),
    "number": (lambda key: json_fields.number(CONTENT, key), {"whole": 3.0, "half": 0.5, "nan": math.nan}),
    "integer": (lambda key: json_fields.integer(CONTENT, key), {"whole": 3, "huge": 10**400}),
    "optional": (json_fields.optional(json_fields.integer), {"whole": 3, "huge": 10**400, "nothing": None}),
    "numbers": (lambda key: json_fields.numbers(CONTENT, key), {"list": (1.0, 2.5)}),
    "texts": (lambda key: json_fields.texts(CONTENT, key), {"words": {"a": "x"}}),
    "shares": (lambda key: json_fields.shares(CONTENT, key), {"named": {"a": 1.0, "b": 0.5}}),
    "parts": (
        lambda key: json_fields.parts(CONTENT, key, dict, lambda part: json_fields.integer(part, "n")),
        {"parts": (1, 2)},
    ),
}


def read(reader: str, key: str) -> Any:
    function: Any = READERS[reader][0]
    return function(CONTENT, key) if reader == "optional" else function(key)


@pytest.mark.parametrize("key", CONTENT)
@pytest.mark.parametrize("reader", READERS)
def test_each_reader_takes_its_kind_and_names_the_key_of_any_other(reader: str, key: str) -> None:
    accepted: dict[str, Any] = READERS[reader][1]
    if key in accepted:
        value = read(reader, key)
        assert value == accepted[key] or (key == "nan" and math.isnan(value))
        assert type(value) is type(accepted[key])
    else:
        # Within a list or a table, the message names the entry.
        inside = {"named": "a", "words": "a"}.get(key, key)
        with pytest.raises(TypeError, match=rf"\b({key}|{inside})\b.* is .*, expected "):
            read(reader, key)


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_key_is_named(reader: str) -> None:
    with pytest.raises(KeyError, match="missing"):
        read(reader, "missing")


def test_an_entry_of_shares_is_named_with_what_holds_it() -> None:
    with pytest.raises(TypeError, match="tasks: fpi is 'much', expected a number"):
        json_fields.shares({"tasks": {"fpi": "much"}}, "tasks")
