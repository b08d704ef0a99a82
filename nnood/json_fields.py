"""Entries of a hand-editable JSON file, each read with a check of its type."""

from collections.abc import Callable
from typing import Any, TypeVar

Part = TypeVar("Part")

_EXPECTED = {str: "a text", bool: "true or false", dict: "named entries", list: "a list"}


def typed(content: dict[str, Any], key: str, kind: type[Part]) -> Part:
    """An entry of a type.

    Args:
        content: Holds it.
        key: Its name.
        kind: `str`, `bool`, `dict` or `list`.

    Raises:
        KeyError: If it is missing.
        TypeError: If it is of another type.
    """
    value = content[key]
    if not isinstance(value, kind):
        raise TypeError(f"{key} is {value!r}, expected {_EXPECTED[kind]}")
    return value


def number(content: dict[str, Any], key: str) -> float:
    """A number; raises as `typed` does."""
    value = content[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{key} is {value!r}, expected a number")
    try:
        return float(value)
    except OverflowError:
        raise TypeError(f"{key} is a whole number of hundreds of digits, expected a smaller one") from None


def integer(content: dict[str, Any], key: str) -> int:
    """A whole number; raises as `typed` does."""
    value = content[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{key} is {value!r}, expected a whole number")
    return value


def optional(read: Callable[[dict[str, Any], str], Part]) -> Callable[[dict[str, Any], str], Part | None]:
    """An entry that may be null, or else is read by a function."""
    return lambda content, key: None if content[key] is None else read(content, key)


def numbers(content: dict[str, Any], key: str) -> tuple[float, ...]:
    """A list of numbers; raises as `typed` does."""
    return tuple(number({key: value}, key) for value in typed(content, key, list))


def parts(content: dict[str, Any], key: str, kind: type[Any], read: Callable[[Any], Part]) -> tuple[Part, ...]:
    """A list whose entries are of a type, each read by a function; raises as `typed` does."""
    return tuple(read(typed({key: value}, key, kind)) for value in typed(content, key, list))


def texts(content: dict[str, Any], key: str) -> dict[str, str]:
    """Named texts; raises as `typed` does."""
    found = typed(content, key, dict)
    return {name: typed(found, name, str) for name in found}


def shares(content: dict[str, Any], key: str) -> dict[str, float]:
    """Named numbers; raises as `typed` does."""
    found = typed(content, key, dict)
    return {name: number({f"{key}: {name}": value}, f"{key}: {name}") for name, value in found.items()}
