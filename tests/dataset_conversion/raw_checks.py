"""What a converter wrote, read the way that planning reads it."""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest

from nnood import cli
from nnood.datasets import load_dataset
from nnood.geometry import Geometry
from nnood.images import read_case, read_image
from nnood.paths import Roots


def read_training(dataset: Path) -> dict[str, tuple[np.ndarray, Geometry]]:
    """Every training case as planning sees it: float32 (C, Z, Y, X), and the geometry."""
    root = dataset.parent
    loaded = load_dataset(dataset.name, Roots(root, root, root))
    return {case: read_case(files, loaded.channels) for case, files in loaded.training.items()}


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    """The one channel of every image in a folder by the name before its ending."""
    return {file.name.removesuffix(".nii.gz"): read_image(file)[0][0] for file in sorted(folder.iterdir())}


def read_pairs(table: Path) -> dict[str, str]:
    """A CSV file of two columns with a header."""
    with table.open(newline="", encoding="utf-8") as file:
        return dict(list(csv.reader(file))[1:])


def times(dataset: Path) -> dict[Path, int]:
    """When each image was written."""
    return {path: path.stat().st_mtime_ns for path in dataset.rglob("*.nii.gz")}


def sentence_of_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence by which `nnood_convert` refuses its input."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr("sys.argv", ["nnood_convert", *map(str, arguments)])
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.convert()
    finally:
        root.handlers[:], root.level = handlers, level
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert line.startswith("nnood_convert: error: ")
    return line
