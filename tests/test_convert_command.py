"""`nnood_convert`: one sub-command per source, made from the table of converters."""

import argparse
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_conversion import SOURCES
from nnood import cli
from nnood.geometry import Geometry
from nnood.images import write_image
from nnood.safety import read_json


def parsers() -> dict[str, argparse.ArgumentParser]:
    parser, _ = cli.convert.build()
    (sources,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(sources.choices)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr("sys.argv", ["nnood_convert", *map(str, arguments)])
    cli.convert()


def test_the_help_lists_every_source_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(cli.convert.build()[0].format_help().split())
    assert set(parsers()) == set(SOURCES)
    for name, converter in SOURCES.items():
        assert f"{name} {converter.description.splitlines()[0]}" in text


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_has_a_page_with_its_own_options(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "4000")
    text = parsers()[source].format_help()
    for paragraph in SOURCES[source].description.split("\n\n"):
        assert " ".join(paragraph.split()) in text
    assert f"Example: nnood_convert {source} -i " in text
    own = {option.name for option in SOURCES[source].options}
    others = {option.name for other in SOURCES.values() for option in other.options} - own
    options = {name for action in parsers()[source]._actions for name in action.option_strings}
    assert {f"--{name}" for name in own} | {"-i", "-d", "-n", "--link", "-np", "--version", "--debug"} <= options
    assert not {f"--{name}" for name in others} & options


@pytest.mark.parametrize("source", SOURCES)
def test_the_examples_parse(source: str) -> None:
    arguments = cli.convert.build()[0].parse_args([source, *shlex.split(SOURCES[source].example)])
    assert arguments.dataset_id == 101
    assert (arguments.link, arguments.debug) == (False, False)


def test_debug_counts_before_and_after_the_source() -> None:
    parser = cli.convert.build()[0]
    rest = ("folder", "-i", "in", "-d", "1")
    assert parser.parse_args(["--debug", *rest]).debug
    assert parser.parse_args([*rest, "--debug"]).debug


def test_the_options_reach_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("nnood_raw", "nnood_preprocessed", "nnood_results"):
        monkeypatch.setenv(variable, "")
    for number in range(5):
        values = np.random.default_rng(number).integers(0, 99, (4, 5, 6)).astype(np.uint8)
        for modality in ("T1", "PD"):
            file = tmp_path / "ixi" / f"IXI{number:03d}-Guys-0800-{modality}.nii.gz"
            write_image(values, Geometry.from_spacing((4, 5, 6), (1, 1, 1)), file)
    run(monkeypatch, "ixi", "-i", "ixi", "-d", 7, "--modality", "PD", "--link", "-np", 1)
    dataset = tmp_path / "nnood_data" / "raw" / "Dataset007_IXI_PD"
    assert read_json(dataset / "dataset.json")["numTraining"] == 4
    (held_out,) = (dataset / "imagesTs").iterdir()
    assert held_out.readlink() == tmp_path / "ixi" / "IXI004-Guys-0800-PD.nii.gz"
    run(monkeypatch, "ixi", "-i", "ixi", "-d", 8, "-n", "Mine", "-np", 1)
    assert (tmp_path / "nnood_data" / "raw" / "Dataset008_Mine" / "dataset.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["mood", "-i", "in", "-d", "1"], "--part"),
        (["mood", "-i", "in", "-d", "1", "--part", "knee"], "'knee'"),
        (["brats", "-i", "in", "-d", "1"], "--normal"),
        (["ixi", "-i", "in", "-d", "1", "--modality", "CT"], "'CT'"),
        (["ixi", "-i", "in", "-d", "1", "--part", "brain"], "--part"),
        (["ixi", "-i", "in", "-d", "1", "--mod", "T1"], "--mod"),
    ],
)
def test_wrong_options_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, *arguments)
    assert part in capsys.readouterr().err.splitlines()[-1]


def test_the_guide_lists_every_source_with_its_example() -> None:
    page = Path(__file__).parents[1] / "documentation" / "how_to" / "convert_a_data_set.md"
    listed = [line.split("|")[2].strip() for line in page.read_text().splitlines() if line.startswith("| ")]
    assert sorted(listed[1:]) == sorted(f"`{name} {converter.example}`" for name, converter in SOURCES.items())
