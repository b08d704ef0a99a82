"""The cases of a report: in which order, with which picture, and what the viewer must know of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnood.case_files import stem
from nnood.errors import UserError, one_error
from nnood.evaluation.folders import MAP_ENDING, find_images, find_masks
from nnood.evaluation.report.html import Html, element, join
from nnood.evaluation.report.pictures import Packed, pack
from nnood.evaluation.report.regions import Region, find_regions, region_text
from nnood.evaluation.report.volumes import CaseFiles, Upright, Volumes, read_volumes
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
        surprise: Share of the other class that the case is on the wrong side of, in [0, 1]; None without labels.
        regions: The most suspicious ones.
        highest: Highest score of a voxel; None where the score map was not opened.
        picture: For the viewer; None where there was no room for one.
        places: Content of the picture's layout that depends on the regions.
        space: What its millimetres are: a key of `SPACES`; None where the score map was not opened.
    """

    name: str
    sample_score: float
    result: CaseResult | None = None
    surprise: float | None = None
    regions: tuple[Region, ...] = ()
    highest: float | None = None
    picture: Packed | None = None
    places: dict[str, Any] = field(default_factory=dict)
    space: str | None = None


def order_cases(scores: Mapping[str, float], results: Mapping[str, CaseResult]) -> list[ShownCase]:
    """Sort cases by interest: the most surprising first; without labels, the most suspicious first.

    The surprise of an anomalous case is the share of normal cases that score at least as high, that of a normal case
    the share of anomalous ones that score at most as high; equal scores count half. Of cases that are as surprising,
    those whose score is farther from the label, 0 or 1, come first.
    """
    known = {name: results[name].anomalous for name in scores if name in results}
    by_label = {label: np.sort([scores[name] for name in known if known[name] == label]) for label in (False, True)}
    cases = []
    for name, score in sorted(scores.items()):
        surprise = None
        if name in known:
            surprise = _share_beyond(score, by_label[not known[name]], above=known[name])
        cases.append(ShownCase(name, score, results.get(name), surprise))
    return sorted(cases, key=_least_interest)


def _share_beyond(score: float, others: np.ndarray, *, above: bool) -> float:
    """Share of sorted scores that are above, or below, a score; equal ones count half. 0 if there are none."""
    if not others.size:
        return 0.0
    below = (np.searchsorted(others, score, "left") + np.searchsorted(others, score, "right")) / (2 * others.size)
    return float(1 - below if above else below)


def _least_interest(case: ShownCase) -> tuple[float, float]:
    """What the order of interest sorts by."""
    if case.result is None or case.surprise is None:
        return 1, -case.sample_score
    return -case.surprise, case.sample_score - 1 if case.result.anomalous else -case.sample_score


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
            "channels": _channel_names(files, volumes),
            "hidden": max(0, len(volumes.channels) - len(picture.layout["windows"])),
            "space": volumes.space,
        }
    return replace(
        case,
        regions=regions,
        highest=float(volumes.scores.max()),
        picture=picture,
        places=places,
        space=volumes.space,
    )


def _channel_names(files: CaseFiles, volumes: Volumes) -> list[str] | None:
    """How the viewer names channels; None if there is no image."""
    if not volumes.channels:
        return None
    if len(files.images) == len(volumes.channels):
        return [path.name for path in files.images]
    return [f"channel {number}" for number in range(len(volumes.channels))]


def region_entry(region: Region, voxel: Sequence[int]) -> dict[str, Any]:
    """What the viewer must know of a region: its words, and its voxel in the picture."""
    return {"text": region_text(region), "at": voxel}


def label_of(result: CaseResult | None) -> str:
    """The label of a case in words; empty without one."""
    return "" if result is None else "anomalous" if result.anomalous else "normal"


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
            "label": label_of(case.result),
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
