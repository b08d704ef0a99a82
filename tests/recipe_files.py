"""For tests of recipes in files."""

from pathlib import Path

import pytest

from nnood.errors import UserError
from nnood.training.recipes import read_recipe


def refused(file: Path) -> str:
    """The one sentence by which a file is refused; it names the file."""
    with pytest.raises(UserError) as error:
        read_recipe(file)
    sentence = str(error.value)
    assert str(file) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence
