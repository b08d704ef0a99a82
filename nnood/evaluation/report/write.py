"""A report as one HTML file that needs nothing else: figures, curves, tables and a viewer of every case."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from string import Template

from nnood import __version__
from nnood.datasets import find_dataset_name
from nnood.errors import UserError
from nnood.evaluation.folders import read_sample_scores
from nnood.evaluation.report.case_table import case_table
from nnood.evaluation.report.cases import (
    ShownCase,
    add_pictures,
    coarse_cases,
    find_case_files,
    order_cases,
    pictures,
    viewer_data,
)
from nnood.evaluation.report.figures import describe_curves, describe_figures, describe_groups, headline_cards
from nnood.evaluation.report.html import Html, element, embedded_json, html, join, paragraph, section
from nnood.evaluation.report.image_folder import find_image_folder
from nnood.evaluation.report.pictures import MAX_CHANNELS, WINDOW
from nnood.evaluation.report.training import describe_training
from nnood.evaluation.report.volumes import SPACES
from nnood.evaluation.results import Evaluation
from nnood.paths import Roots
from nnood.safety import write_text

BUDGET = 12 * 10**6
SCRIPTS = ("volume.js", "plane.js", "viewer.js", "table.js", "page.js")
NO_BASELINES: Mapping[str, Evaluation] = {}


def write_report(
    output: Path,
    *,
    roots: Roots | None = None,
    dataset: str | None = None,
    predictions: Path | None = None,
    images: Path | None = None,
    labels: Path | None = None,
    evaluation: Evaluation | None = None,
    baselines: Mapping[str, Evaluation] = NO_BASELINES,
    title: str | None = None,
    budget: int = BUDGET,
    progress: bool = True,
) -> Path:
    """Write a report; each part is there only if there is something to say.

    Args:
        output: The HTML file to write.
        roots: The three root folders; needed with `dataset`.
        dataset: Id or name of the data set whose training is described.
        predictions: Folder that nnood_predict wrote; its cases are shown in the viewer.
        images: Folder of the predicted images. If None, what `find_image_folder` finds; without any, score maps are
            shown on black.
        labels: Folder of masks, drawn in the viewer; a file of sample labels has nothing to draw.
        evaluation: Of these predictions; without it, the report is a reading list.
        baselines: Name to evaluation of other predictions of the same cases.
        title: Headline; the data set or the folder of predictions if None.
        budget: Largest size of all embedded pictures together, in bytes.
        progress: Whether to show a progress bar, where there is a terminal.

    Returns:
        The file.

    Raises:
        UserError: If there is nothing to report, or files are missing, broken or differ in geometry.
    """
    name = find_dataset_name(dataset, roots) if dataset is not None and roots is not None else dataset
    training = describe_training(roots.results / name) if roots is not None and name is not None else Html()
    if predictions is None and evaluation is None and not training:
        what = f"{name} has no trained fold" if name else "neither a data set nor predictions were given"
        raise UserError(f"There is nothing to report: {what}; train with nnood_train or give a folder of predictions.")
    cases = _order(predictions, evaluation)
    if predictions is not None:
        images = find_image_folder(
            predictions, [case.name for case in cases], images=images, labels=labels, roots=roots, dataset=name
        )
        masks = labels if labels is not None and labels.is_dir() else None
        found = find_case_files(predictions, [case.name for case in cases], images, masks)
        cases = add_pictures(cases, found, budget, progress=progress)
    parts = [
        training,
        describe_figures(evaluation, baselines) if evaluation else Html(),
        describe_curves(evaluation, baselines) if evaluation else Html(),
        describe_groups(evaluation) if evaluation else Html(),
        _describe_cases(cases, evaluation, pictured=predictions is not None) if cases else Html(),
    ]
    headline = title or (name if name is not None else predictions.resolve().name if predictions else "Evaluation")
    page = Template(_asset("page.html")).substitute(
        title=html(headline),
        style=_asset("style.css"),
        facts=_facts(name if headline != name else None, predictions, cases),
        cards=headline_cards(evaluation) if evaluation else "",
        links=_links(parts),
        sections=join(part for part in parts if part),
        data=embedded_json(viewer_data(cases, _threshold(evaluation))),
        pictures=pictures(cases),
        script="\n".join(_asset(script) for script in SCRIPTS),
    )
    write_text(output, page)
    return output


def _asset(name: str) -> str:
    return (files("nnood.evaluation.report") / "page" / name).read_text(encoding="utf-8")


def _order(predictions: Path | None, evaluation: Evaluation | None) -> list[ShownCase]:
    results = {case.name: case for case in evaluation.cases} if evaluation else {}
    scores = {name: case.sample_score for name, case in results.items()}
    return order_cases(scores if predictions is None else read_sample_scores(predictions), results)


def _threshold(evaluation: Evaluation | None) -> float | None:
    if evaluation is None:
        return None
    return evaluation.best_threshold if evaluation.threshold is None else evaluation.threshold


def _facts(name: str | None, predictions: Path | None, cases: Sequence[ShownCase]) -> Html:
    facts = [
        f"data set {name}" if name else "",
        # Of the path, the name only: a report is passed on.
        f"predictions in {predictions.resolve().name}" if predictions else "",
        f"{len(cases)} case{'s' if len(cases) != 1 else ''}" if cases else "",
        f"{datetime.now().astimezone():%d %B %Y, %H:%M}",
        f"nnood {__version__}",
    ]
    return join(element("span", fact) for fact in facts if fact)


LINKS = {
    "training": "Training",
    "figures": "Figures",
    "curves": "Curves",
    "groups": "Kinds and sizes",
    "cases": "Cases",
    "viewer": "Viewer",
}


def _links(parts: Sequence[Html]) -> Html:
    there = [name for name in LINKS if any(f'<section id="{name}"' in part for part in parts)]
    return join(element("a", LINKS[name], href=f"#{name}") for name in there) if len(there) > 1 else Html()


def _describe_cases(cases: Sequence[ShownCase], evaluation: Evaluation | None, *, pictured: bool) -> Html:
    if evaluation is not None:
        text = (
            "Surprise is the share of the other class that a case is on the wrong side of: of an anomalous case, the "
            "normal ones that score at least as high; of a normal one, the anomalous ones that score at most as high "
            "(equal scores count half). Click on a heading to sort, on a case to see it."
        )
    else:
        text = (
            "The most suspicious cases first, each with its top regions: what is connected above half of the case's "
            f"highest score. {_convention(cases)} Click on a region to see it."
        )
    orders = [
        element("button", words, type="button", data_order=order, aria_pressed="false")
        for words, order in _orders(cases, labelled=evaluation is not None).items()
    ]
    label = element("label", Html('Filter <input type="search" id="filter" autocomplete="off">'))
    found = element("span", "", id="found", role="status")
    tools = element("div", join((element("div", join(orders), class_="orders"), label, found)), class_="tools")
    table = case_table(cases, evaluation.dimensions if evaluation else None)
    parts = [section("cases", "Cases" if evaluation else "Reading list", paragraph(text), tools, table)]
    if any(case.picture for case in cases):
        parts.append(section("viewer", "Viewer", Html(_asset("viewer.html")), _caveats(cases)))
    elif pictured:
        parts.append(paragraph("The size of this file leaves no room for pictures.", class_="note"))
    return join(parts)


def _convention(cases: Sequence[ShownCase]) -> str:
    """Which millimetres are meant."""
    spaces = {case.space for case in cases if case.space}
    return SPACES[spaces.pop() if len(spaces) == 1 else "image"]


def _orders(cases: Sequence[ShownCase], *, labelled: bool) -> dict[str, str]:
    """Words on a button to columns and directions: the first column that there is decides."""
    if not labelled:
        return {
            "Most suspicious": "score-descending",
            "Least suspicious": "score-ascending",
            "By name": "name-ascending",
        }
    by_voxels = any(case.result and case.result.figures.get("voxel_ap") is not None for case in cases)
    orders = {"Most surprising": "surprise-descending"}
    if by_voxels:
        return orders | {"Best": "voxel_ap-descending", "Worst": "voxel_ap-ascending"}
    return orders | {"Least surprising": "surprise-ascending"}


def _caveats(cases: Sequence[ShownCase]) -> Html:
    """What the pictures leave out, one sentence each."""
    shown = [case for case in cases if case.picture]
    low, high = WINDOW
    notes = [_convention(cases)] if cases[0].surprise is not None else []
    bare = sum(case.places.get("channels") is None for case in shown)
    if bare < len(shown):
        notes.append(
            f"Intensities are kept in 256 steps between the percentiles {low:g} and {high:g} of each case, scores in "
            "255 steps up to the case's highest."
        )
    else:
        notes.append(
            "No images were found: score maps are shown on black, in 255 steps up to the case's highest score."
        )
    if 0 < bare < len(shown):
        notes.append(f"{bare} of {len(shown)} cases have no image in the folder; their score maps are shown on black.")
    coarse = coarse_cases(cases)
    if coarse:
        notes.append(
            f"To keep this file small, {len(coarse)} of {len(shown)} cases are shown on a coarser grid: the image is "
            "averaged, score and truth are the highest of each block. Tables and regions are of the full resolution."
        )
    if len(shown) < len(cases):
        first = "most surprising" if cases[0].surprise is not None else "most suspicious"
        notes.append(
            f"To keep this file small, only {len(shown)} of {len(cases)} cases, the {first} ones, have pictures."
        )
    if any(case.places.get("hidden") for case in shown):
        notes.append(f"Of each image, the first {MAX_CHANNELS} channels are shown.")
    return element("ul", join(element("li", note) for note in notes), class_="note")
