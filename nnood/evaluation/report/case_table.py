"""The table of a report's cases, which the page's script sorts and filters."""

from collections.abc import Sequence
from dataclasses import dataclass

from nnood.evaluation.report.cases import ShownCase, label_of
from nnood.evaluation.report.html import Html, cell, element, join, number_cell, short, table_box
from nnood.evaluation.report.regions import region_text
from nnood.evaluation.results import CaseResult


@dataclass(frozen=True)
class Column:
    """A column of the table of cases.

    Attributes:
        key: By which the buttons for an order name it.
        title: In the header.
        numeric: Whether it holds numbers.
        cells: One per case.
    """

    key: str
    title: str
    numeric: bool
    cells: list[Html]


def case_table(cases: Sequence[ShownCase], dimensions: int | None) -> Html:
    """The table of cases; a column that would be empty is left out.

    Args:
        cases: In the order of the rows.
        dimensions: 2 or 3, of the evaluated score maps; None if there are none.
    """
    columns = [column for column in _columns(cases, dimensions) if column is not None]
    header = [element("th", "Case", scope="col", data_key="name", data_type="text")]
    header += [
        element("th", column.title, scope="col", data_key=column.key, data_type="number" if column.numeric else "text")
        for column in columns
    ]
    rows = []
    for number, case in enumerate(cases):
        first = element("button", case.name, type="button", class_="open") if case.picture else case.name
        cells = [element("th", first, scope="row", data_sort=case.name), *(column.cells[number] for column in columns)]
        rows.append(element("tr", join(cells), data_case=number if case.picture else None))
    inner = join((element("thead", element("tr", join(header))), element("tbody", join(rows))))
    return table_box(element("table", inner, id="cases-table"), "cases", class_="tall")


def _columns(cases: Sequence[ShownCase], dimensions: int | None) -> list[Column | None]:
    results = [case.result for case in cases]
    labelled = any(result is not None for result in results)
    kinds = ["" if result is None else result.kind for result in results]
    columns = [
        _text_column("kind", "Kind", kinds)
        if any(result and result.anomalous and result.kind for result in results)
        else None,
        _text_column("label", "Label", [label_of(result) for result in results]) if labelled else None,
        _number_column("score", "Sample score", [case.sample_score for case in cases], 4),
        _number_column("voxel_ap", "Voxel AP", [_of(result, "voxel_ap") for result in results]),
        _number_column("voxel_best_dice", "Best Dice", [_of(result, "voxel_best_dice") for result in results]),
        _size_column(cases, flat=dimensions == 2),
        _number_column("surprise", "Surprise", [case.surprise for case in cases], 2),
    ]
    if not labelled:
        columns.append(_number_column("highest", "Highest score", [case.highest for case in cases]))
        columns.append(_region_column(cases))
    return columns


def _of(result: CaseResult | None, figure: str) -> float | None:
    return None if result is None else result.figures.get(figure)


def _text_column(key: str, title: str, texts: Sequence[str]) -> Column:
    return Column(key, title, False, [cell(text, data_sort=text) for text in texts])


def _number_column(key: str, title: str, values: Sequence[float | None], digits: int = 3) -> Column | None:
    if all(value is None for value in values):
        return None
    return Column(
        key,
        title,
        True,
        [_undefined() if value is None else number_cell(f"{value:.{digits}f}", value) for value in values],
    )


def _undefined() -> Html:
    return number_cell(element("span", "–", title="undefined", class_="undefined"))  # noqa: RUF001


def _size_column(cases: Sequence[ShownCase], *, flat: bool) -> Column | None:
    sizes = [case.result.size if case.result and case.result.anomalous else None for case in cases]
    if all(size is None for size in sizes):
        return None
    cells = [
        _undefined() if size is None else number_cell(short(size) if flat else short(size / 1000), size)
        for size in sizes
    ]
    return Column("size", "Size (mm²)" if flat else "Size (ml)", True, cells)


def _region_column(cases: Sequence[ShownCase]) -> Column:
    cells = []
    for case in cases:
        entries = []
        for number, region in enumerate(case.regions):
            text = region_text(region)
            inner = element("button", text, type="button", data_region=number) if case.picture else text
            entries.append(element("li", inner))
        peak = case.regions[0].peak if case.regions else 0.0
        cells.append(cell(element("ol", join(entries)), class_="regions", data_sort=f"{peak:.9g}"))
    return Column("regions", "Regions: centre, box, size, peak", True, cells)
