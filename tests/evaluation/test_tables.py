import re
from dataclasses import replace

import pytest

from nnood.evaluation.mood import MoodFigures
from nnood.evaluation.results import FIGURES, CaseResult, Evaluation, Figure, Group
from nnood.evaluation.tables import UNDEFINED, figure, format_comparison, format_mood, format_table


def _figures(**known: Figure) -> dict[str, Figure]:
    return {key: known.get(key, Figure(None)) for key in FIGURES}


@pytest.fixture
def evaluation() -> Evaluation:
    blur = {"voxel_ap": Figure(0.75), "sample_ap": Figure(0.5)}
    return Evaluation(
        normal_cases=3,
        anomalous_cases=12,
        figures=_figures(
            voxel_ap=Figure(0.61234, 0.05, 0.5, 0.7),
            voxel_auroc=Figure(0.9, 0.5),
            voxel_best_dice=Figure(0.4, 0.1),
            voxel_dice=Figure(0.3),
            sample_auroc=Figure(None, 0.5),
        ),
        groups=(
            Group("kind", "blur", 4, (), blur),
            Group("kind", "smooth_noise", 12, ("fpi",), {"voxel_ap": Figure(0.25)}),
            Group("size", "small: 1 ml to 2 ml", 5, (), {"voxel_ap": Figure(None)}),
        ),
        cases=(
            CaseResult("a_case_of_long_name", "blur", True, 0.123456789, 4.0, {"voxel_ap": 0.875, "voxel_auroc": None}),
            CaseResult("b", "normal", False, 0.5, 0.0, {"voxel_ap": None}),
        ),
        threshold=0.25,
        best_threshold=0.123456,
        notes=("Something is undefined: there is a reason.",),
    )


def _block(table: str, first: str) -> list[str]:
    """The lines of the part of a table that begins with a word, down to the next empty line."""
    lines = table.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(first))
    block = lines[start:]
    return block[: block.index("")] if "" in block else block


def _cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line)


def _row(block: list[str], first: str) -> dict[str, str]:
    """A row by its first cell: header to cell, by where the columns end."""
    ends = {match.group(): match.end() for match in re.finditer(r"\S+(?: \S+)*", block[0])}
    line = next(line for line in block if line.startswith(first))
    found = {}
    for match in re.finditer(r"\S+(?: \S+)*", line[len(first) :]):
        header = next((name for name, end in ends.items() if end == match.end() + len(first)), None)
        assert header, f"{match.group()!r} ends under no column of {block[0]!r}"
        found[header] = match.group()
    return found


def test_pooled_figures(evaluation: Evaluation) -> None:
    table = format_table(evaluation)
    assert table.splitlines()[0] == "12 anomalous and 3 normal cases"
    block = _block(table, "all cases")
    assert _row(block, "voxel AP") == {"value": "0.612", "95 % interval": "0.500 to 0.700", "chance level": "0.0500"}
    assert _row(block, "voxel AUROC") == {"value": "0.900", "chance level": "0.500"}
    assert _row(block, "sample AUROC") == {"value": UNDEFINED, "chance level": "0.500"}
    assert _row(block, "best Dice (at the threshold 0.123)")["value"] == "0.400"
    assert _row(block, "Dice at the threshold 0.25")["value"] == "0.300"
    assert "Something is undefined: there is a reason." in table
    assert "nan" not in table.lower()
    assert "None" not in table


def test_no_dice_at_a_threshold_that_was_not_given(evaluation: Evaluation) -> None:
    assert "Dice at the threshold" not in format_table(replace(evaluation, threshold=None))


def test_baselines_stand_beside(evaluation: Evaluation) -> None:
    other = replace(evaluation, figures=_figures(voxel_ap=Figure(0.0625), sample_auroc=Figure(0.5)))
    block = _block(format_table(evaluation, {"random": other, "z-score by voxel": evaluation}), "all cases")
    row = _row(block, "voxel AP")
    assert (row["value"], row["random"], row["z-score by voxel"]) == ("0.612", "0.0625", "0.612")
    assert _row(block, "voxel AUROC")["random"] == UNDEFINED
    assert list(row) == ["value", "95 % interval", "chance level", "random", "z-score by voxel"]


def test_kinds_that_are_close_to_a_task_are_marked(evaluation: Evaluation) -> None:
    table = format_table(evaluation)
    block = _block(table, "kind of anomaly")
    assert _row(block, "smooth_noise*")["cases"] == "12"
    assert _row(block, "smooth_noise*")["voxel AP"] == "0.250"
    row = _row(block, "blur")
    assert (row["cases"], row["voxel AP"], row["sample AP"], row["sample AUROC"]) == ("4", "0.750", "0.500", UNDEFINED)
    assert not any(line.startswith("blur*") for line in block)
    assert block[-1].startswith("* close to")
    plain = replace(evaluation, groups=evaluation.groups[:1])
    assert "*" not in format_table(plain)


def test_sizes(evaluation: Evaluation) -> None:
    block = _block(format_table(evaluation), "size of anomaly")
    assert _row(block, "small: 1 ml to 2 ml")["cases"] == "5"
    assert _row(block, "small: 1 ml to 2 ml")["voxel AP"] == UNDEFINED
    assert len(block) == 2


def test_no_groups(evaluation: Evaluation) -> None:
    table = format_table(replace(evaluation, groups=()))
    assert "of anomaly" not in table


def test_cases(evaluation: Evaluation) -> None:
    block = _block(format_table(evaluation), "case ")
    row = _row(block, "a_case_of_long_name")
    assert (row["kind"], row["label"], row["sample score"]) == ("blur", "anomalous", "0.123457")
    assert row["voxel AP"] == "0.875"
    assert _row(block, "b ")["label"] == "normal"
    assert _row(block, "b ")["voxel AP"] == UNDEFINED
    unknown = replace(evaluation, cases=tuple(replace(case, kind="") for case in evaluation.cases))
    assert "kind" not in _cells(_block(format_table(unknown), "case ")[0])


def test_methods_side_by_side(evaluation: Evaluation) -> None:
    lines = format_comparison({"ours": evaluation, "another method": evaluation}).splitlines()
    assert len(lines) == 4
    assert _row(lines, "ours") == {
        "voxel AP": "0.612",
        "sample AP": UNDEFINED,
        "voxel AUROC": "0.900",
        "sample AUROC": UNDEFINED,
    }
    assert _row(lines, "another method") == _row(lines, "ours")
    assert _row(lines, "chance")["voxel AP"] == "0.0500"


def test_mood_figures_in_full() -> None:
    text = format_mood(MoodFigures(0.123456789, None))
    first, reason = text.splitlines()
    assert first == f"MOOD pixel-level AP 0.123457, sample-level AP {UNDEFINED}"
    assert "nothing anomalous" in reason
    assert len(format_mood(MoodFigures(0.5, 1.0)).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "expected"), [(None, UNDEFINED), (0.0, "0.00"), (1.0, "1.00"), (0.12345, "0.123"), (1e-5, "1.00e-05")]
)
def test_a_figure_in_words(value: float | None, expected: str) -> None:
    assert figure(value) == expected
