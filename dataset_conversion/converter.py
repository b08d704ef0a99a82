"""What the command line must know of a converter."""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMON = ("source", "raw_root", "dataset_id", "name", "link", "processes")


@dataclass(frozen=True)
class Option:
    """An option that one converter has and others have not.

    Attributes:
        name: Keyword of the function, which says the default; on the command line `--name`.
        help: For the user.
        type: Turns text into a value.
        choices: What may be given; anything if empty.
        several: Whether it takes several values, which reach the function as a tuple.
    """

    name: str
    help: str
    type: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    several: bool = False


@dataclass(frozen=True)
class Converter:
    """A source of data that `nnood_convert` takes.

    Attributes:
        function: `convert_NAME(source, raw_root, dataset_id, name, *, <options>, link, processes)`; returns the folder.
        default_name: Of the data set, if the user gives none; `{OPTION}` stands for the value of an option, so that
            other choices make another data set.
        options: The function's own options.
        example: What follows `nnood_convert NAME` in an example.
    """

    function: Callable[..., Path]
    default_name: str
    options: tuple[Option, ...] = ()
    example: str = "-i FOLDER -d 101"

    def __post_init__(self) -> None:
        own = [name for name in inspect.signature(self.function).parameters if name not in COMMON]
        described = [option.name for option in self.options]
        if sorted(own) != sorted(described):
            raise ValueError(f"{self.function.__name__} has the options {own}, but described are {described}.")

    @property
    def description(self) -> str:
        """All that the module of the function says of the source."""
        return inspect.getdoc(sys.modules[self.function.__module__]) or ""

    def default(self, option: Option) -> Any:
        """The function's default; `inspect.Parameter.empty` where the option must be given."""
        return inspect.signature(self.function).parameters[option.name].default

    def name_with(self, given: Mapping[str, Any]) -> str:
        """The default name of a data set.

        Args:
            given: The options that the user gave, by name; lists and tuples of those that take several values.
        """
        values = {option.name: given.get(option.name, self.default(option)) for option in self.options}
        words = {
            name: "_".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            for name, value in values.items()
        }
        return re.sub(r"[^\w.-]", "", self.default_name.format_map(words))
