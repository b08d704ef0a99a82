"""The part of a report with the cases: their table, their pictures and their most suspicious regions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata
from tqdm import tqdm

from nnood.case_files import stem
from nnood.errors import UserError, one_error
from nnood.evaluation.folders import MAP_ENDING, find_images, find_masks
from nnood.evaluation.report_html import Html, cell, element, join, number_cell, short
from nnood.evaluation.report_regions import Region, find_regions
from nnood.evaluation.report_volumes import CaseFiles, Packed, Upright, pack, read_volumes
from nnood.evaluation.results import CaseResult
from nnood.images import image_ending

# What a case may take at least, however many there are: what is left then goes to the first ones.
LEAST_ALLOWANCE = 24 * 1024


@dataclass(frozen=True)
class ShownCase:
    """One case as the page has it.

    Attributes:
        name: Of the case.
        sample_score: Predicted.
        result: What the evaluation says of it; None without labels.
        surprise: In [0, 1]; None without labels.
        regions: The most suspicious ones.
        highest: Highest score of a voxel; None where the score map was not opened.
        picture: For the viewer; None where there was no room for one.
        places: Content of the picture's layout that depends on the regions.
    """

    name: str
    sample_score: float
    result: CaseResult | None = None
    surprise: float | None = None
    regions: tuple[Region, ...] = ()
    highest: float | None = None
    picture: Packed | None = None
    places: dict[str, Any] = field(default_factory=dict)


def order_cases(scores: Mapping[str, float], results: Mapping[str, CaseResult]) -> list[ShownCase]:
    """Sort cases by interest: the most surprising first; without labels, the most suspicious first.

    A normal case with one of the highest sample scores is surprising, and so is an anomalous one with one of the
    lowest: the surprise is the distance of the label, 0 or 1, from the rank of the score, from 0 to 1.
    """
    names = sorted(scores)
    ranks = (rankdata([scores[name] for name in names]) - 1) / max(1, len(names) - 1) if names else []
    if len(names) == 1:
        ranks = [0.5]
    cases = [
        ShownCase(name, scores[name], result, None if result is None else abs(result.anomalous - float(rank)))
        for name, rank in zip(names, ranks, strict=True)
        for result in [results.get(name)]
    ]
    return sorted(cases, key=lambda case: (-1 if case.surprise is None else -case.surprise, -case.sample_score))


def find_case_files(
    predictions: Path, names: Iterable[str], images: Path | None, masks: Path | None
) -> dict[str, CaseFiles]:
    """Find the files of each case; an image or a mask may be missing."""
    wanted = set(names)
    first = find_images(images, wanted) if images else {}
    drawn = find_masks(masks) if masks else {}
    return {
        name: CaseFiles(
            predictions / f"{name}{MAP_ENDING}",
            tuple(_channels(first[name], name)) if name in first else (),
            drawn.get(name),
        )
        for name in wanted
    }


def _channels(first: Path, name: str) -> Sequence[Path]:
    """All channels of the case whose first is given."""
    if stem(first) == name:
        return [first]
    ending = first.name[-len(image_ending(first) or "") :]
    numbered = (first.with_name(f"{name}_{channel:04d}{ending}") for channel in count(int(stem(first)[-4:])))
    return list(takewhile(Path.is_file, numbered))


def add_pictures(
    cases: Sequence[ShownCase], files: Mapping[str, CaseFiles], budget: int, *, progress: bool = True
) -> list[ShownCase]:
    """Read the cases one after the other and make their pictures, as fine as there is room for.

    What a case does not need goes to those after it.

    Args:
        cases: By falling interest: where room is short, the last ones get no picture.
        files: Of each case.
        budget: For all pictures together, in bytes of the page.
        progress: Whether to show a progress bar, where there is a terminal.

    Raises:
        UserError: If files are broken or don't fit together; all such cases are listed.
    """
    shown, faults = [], []
    remaining = budget
    for done, case in enumerate(tqdm(cases, desc="Packing", unit="case", disable=None if progress else True)):
        allowance = min(remaining, max(remaining // (len(cases) - done), LEAST_ALLOWANCE))
        try:
            shown.append(_with_picture(case, files[case.name], allowance))
        except UserError as error:
            faults.append(str(error))
            continue
        picture = shown[-1].picture
        remaining -= picture.size if picture else 0
    one_error(faults)
    return shown


def _with_picture(case: ShownCase, files: CaseFiles, allowance: int) -> ShownCase:
    volumes = read_volumes(files)
    regions = tuple(find_regions(volumes.scores, volumes.geometry))
    picture = pack(volumes, allowance)
    places: dict[str, Any] = {}
    if picture:
        upright = Upright.of(volumes.geometry)
        factors = [picture.factors[axis] for axis in upright.axes]
        turned = [upright.index(region.voxel, volumes.geometry.size) for region in regions]
        at = [[index // factor for index, factor in zip(voxel, factors, strict=True)] for voxel in turned]
        places = {
            "regions": [region_entry(region, voxel) for region, voxel in zip(regions, at, strict=True)],
            "factors": picture.factors,
            "channels": [path.name for path in files.images] if len(files.images) == len(volumes.channels) else [],
            "hidden": max(0, len(volumes.channels) - len(picture.layout["windows"])),
        }
    highest = float(volumes.scores.max())
    return ShownCase(
        case.name, case.sample_score, case.result, case.surprise, regions, highest, picture, places
    )


def region_entry(region: Region, voxel: Sequence[int]) -> dict[str, Any]:
    """What the viewer must know of a region: its words, and its voxel in the picture."""
    return {"text": region_text(region), "at": voxel}


def region_text(region: Region) -> str:
    """A region in words: centre, size and peak."""
    centre = ", ".join(short(round(value, 1)) for value in region.centre)
    extent = " × ".join(short(round(value, 1)) for value in region.extent)  # noqa: RUF001
    return f"({centre}) mm, {extent} mm, {volume_text(region.volume, len(region.centre))}, peak {region.peak:.3f}"


def volume_text(volume: float, dimensions: int) -> str:
    """A volume or, in 2D, an area, in a unit that keeps the number short."""
    if dimensions == 2:
        return f"{short(volume)} mm²"
    return f"{short(volume / 1000)} ml" if volume >= 100 else f"{short(volume)} mm³"


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


def case_table(cases: Sequence[ShownCase]) -> Html:
    """The table of cases; a column that would be empty is left out."""
    columns = [column for column in _columns(cases) if column is not None]
    header = [element("th", "Case", scope="col", data_key="name", data_type="text")]
    header += [
        element(
            "th", column.title, scope="col", data_key=column.key, data_type="number" if column.numeric else "text"
        )
        for column in columns
    ]
    rows = []
    for number, case in enumerate(cases):
        first = element("button", case.name, type="button", class_="open") if case.picture else case.name
        cells = [element("th", first, scope="row", data_sort=case.name), *(column.cells[number] for column in columns)]
        rows.append(element("tr", join(cells), data_case=number if case.picture else None))
    inner = join((element("thead", element("tr", join(header))), element("tbody", join(rows))))
    box = element("table", inner, id="cases-table")
    return element("div", box, class_="table-box tall", tabindex=0)


def _columns(cases: Sequence[ShownCase]) -> list[Column | None]:
    results = [case.result for case in cases]
    labelled = any(result is not None for result in results)
    kinds = ["" if result is None else result.kind for result in results]
    columns = [
        _text_column("kind", "Kind", kinds) if any(result and result.anomalous and result.kind for result in results) else None,
        _text_column("label", "Label", [_label(result) for result in results]) if labelled else None,
        _number_column("score", "Sample score", [case.sample_score for case in cases], 4),
        _number_column("voxel_ap", "Voxel AP", [_of(result, "voxel_ap") for result in results]),
        _number_column("voxel_best_dice", "Best Dice", [_of(result, "voxel_best_dice") for result in results]),
        _size_column(cases),
        _number_column("surprise", "Surprise", [case.surprise for case in cases], 2),
    ]
    if not labelled:
        columns.append(_number_column("highest", "Highest score", [case.highest for case in cases]))
        columns.append(_region_column(cases))
    return columns


def _of(result: CaseResult | None, figure: str) -> float | None:
    return None if result is None else result.figures.get(figure)


def _label(result: CaseResult | None) -> str:
    return "" if result is None else "anomalous" if result.anomalous else "normal"


def _text_column(key: str, title: str, texts: Sequence[str]) -> Column:
    return Column(key, title, False, [cell(text, data_sort=text) for text in texts])


def _number_column(key: str, title: str, values: Sequence[float | None], digits: int = 3) -> Column | None:
    if all(value is None for value in values):
        return None
    return Column(
        key, title, True, [_undefined() if value is None else number_cell(f"{value:.{digits}f}", value) for value in values]
    )


def _undefined() -> Html:
    return number_cell(element("span", "–", title="undefined", class_="undefined"))  # noqa: RUF001


def _size_column(cases: Sequence[ShownCase]) -> Column | None:
    sizes = [case.result.size if case.result and case.result.anomalous else None for case in cases]
    if all(size is None for size in sizes):
        return None
    flat = any(case.regions and len(case.regions[0].centre) == 2 for case in cases)
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


def viewer_data(cases: Sequence[ShownCase], threshold: float | None) -> dict[str, Any]:
    """What the page's script must know.

    Args:
        cases: In the order of the table.
        threshold: Below which no score is drawn at first; half of the highest score of all cases if None.
    """
    tops = [case.highest or 0 for case in cases if case.picture]
    top = max(tops, default=1.0) or 1.0
    entries = [
        {
            "name": case.name,
            "kind": case.result.kind if case.result else "",
            "label": _label(case.result),
            "score": case.sample_score,
            **case.picture.layout,
            **case.places,
        }
        if case.picture
        else None
        for case in cases
    ]
    return {"top": top, "threshold": min(0.5 * top if threshold is None else threshold, top), "cases": entries}


def pictures(cases: Sequence[ShownCase]) -> Html:
    """The pictures as blocks of text, which the script decodes when a case is opened."""
    return join(
        element("script", Html("\n".join(case.picture.uris)), type="text/plain", id=f"picture-{number}")
        for number, case in enumerate(cases)
        if case.picture
    )


def coarse_cases(cases: Sequence[ShownCase]) -> list[str]:
    """Names of the cases that are shown on a coarser grid than their own."""
    return [case.name for case in cases if case.picture and np.prod(case.picture.factors) > 1]
