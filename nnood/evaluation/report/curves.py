"""Curves as SVG, drawn here so that the page needs no library; colours come from the page's style."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nnood.evaluation.report.html import Html, element, join
from nnood.evaluation.results import Evaluation

WIDTH, HEIGHT = 280, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 12, 46
FEWEST, MOST = 1 / 8, 8  # false positives per case, the ends of the logarithmic axis
SMALLEST_STEP = 0.002  # of the axes: finer detail is not seen and would only make the page large
BASELINE_COLOURS = 4

Points = Sequence[tuple[float, float]]
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Axes:
    """What a kind of curve is drawn on.

    Attributes:
        title: Of the plot.
        across: What runs along the horizontal axis.
        up: What runs along the vertical one.
        logarithmic: Whether the horizontal axis runs from 1/8 to 8 by powers of two instead of from 0 to 1.
        chance: Key of the figure whose chance level is a horizontal line, `diagonal`, or empty.
    """

    title: str
    across: str
    up: str
    logarithmic: bool = False
    chance: str = ""


CURVES = {
    "precision_recall": Axes("Precision and recall of voxels", "recall", "precision", chance="voxel_ap"),
    "roc": Axes("ROC of voxels", "false positive rate", "true positive rate", chance="diagonal"),
    "sample_roc": Axes("ROC of cases", "false positive rate", "true positive rate", chance="diagonal"),
    "froc": Axes("FROC of objects", "false positives per case", "share of objects found", logarithmic=True),
}


def draw_curves(evaluation: Evaluation, baselines: Mapping[str, Evaluation]) -> list[Html]:
    """Draw every curve that is defined, with those of the baselines as thinner lines.

    Returns:
        One element `figure` per curve.
    """
    return [
        _figure(axes, evaluation, key, {name: other.curves.get(key, ()) for name, other in baselines.items()})
        for key, axes in CURVES.items()
        if evaluation.curves.get(key)
    ]


def _figure(axes: Axes, evaluation: Evaluation, key: str, others: Mapping[str, Points]) -> Html:
    chance = None
    if axes.chance and axes.chance != "diagonal":
        figure = evaluation.figures.get(axes.chance)
        chance = figure.chance if figure else None
    lines = [(f"line-{1 + i % BASELINE_COLOURS}", points) for i, points in enumerate(others.values()) if points]
    lines.append(("line-0", evaluation.curves[key]))
    names = [("line-0", "predictions")] if others else []
    names += [(f"line-{1 + i % BASELINE_COLOURS}", name) for i, (name, points) in enumerate(others.items()) if points]
    if axes.chance == "diagonal" or chance is not None:
        names.append(("line-chance", "chance"))
    parts = [
        *_grid(axes),
        *_chance_line(axes, chance),
        *(element("path", class_=f"line {name}", d=_path(points, axes)) for name, points in lines),
    ]
    box = f"0 0 {WIDTH} {HEIGHT}"
    drawing = element(
        "svg", join(parts), viewBox=box, role="img", aria_label=f"{axes.title}: {axes.up} by {axes.across}"
    )
    legend = element("p", join(_legend_entry(name, text) for name, text in names), class_="legend")
    return element("figure", join((element("figcaption", axes.title), drawing, legend)))


def _legend_entry(name: str, text: str) -> Html:
    sample = element(
        "svg", element("path", class_=f"line {name}", d="M1 5H19"), viewBox="0 0 20 10", aria_hidden="true"
    )
    return element("span", Html(sample + element("span", text)))


def _across(axes: Axes) -> Scale:
    width = WIDTH - LEFT - RIGHT
    if axes.logarithmic:
        return lambda x: LEFT + width * math.log2(x / FEWEST) / math.log2(MOST / FEWEST)
    return lambda x: LEFT + width * min(max(x, 0), 1)


def _up(y: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(y, 0), 1))


def _grid(axes: Axes) -> list[Html]:
    across = _across(axes)
    ticks = {"1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2, "1": 1, "2": 2, "4": 4, "8": 8}
    fractions = {f"{i / 5:g}": i / 5 for i in range(6)}
    parts = []
    for text, x in (ticks if axes.logarithmic else fractions).items():
        parts.append(element("path", class_="grid", d=f"M{across(x):.1f} {_up(1)}V{_up(0)}"))
        parts.append(element("text", text, x=f"{across(x):.1f}", y=_up(0) + 16, text_anchor="middle"))
    for text, y in fractions.items():
        parts.append(element("path", class_="grid", d=f"M{LEFT} {_up(y):.1f}H{WIDTH - RIGHT}"))
        parts.append(element("text", text, x=LEFT - 7, y=f"{_up(y) + 4:.1f}", text_anchor="end"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        element("text", axes.across, class_="axis", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8, text_anchor="middle")
    )
    turned = f"rotate(-90 13 {middle})"
    parts.append(element("text", axes.up, class_="axis", x=13, y=middle, transform=turned, text_anchor="middle"))
    return parts


def _chance_line(axes: Axes, chance: float | None) -> list[Html]:
    across = _across(axes)
    if axes.chance == "diagonal":
        return [element("path", class_="line line-chance", d=f"M{across(0)} {_up(0)}L{across(1)} {_up(1)}")]
    if chance is not None:
        return [element("path", class_="line line-chance", d=f"M{LEFT} {_up(chance):.1f}H{WIDTH - RIGHT}")]
    return []


def _path(points: Points, axes: Axes) -> str:
    across = _across(axes)
    places = [(across(x), _up(y)) for x, y in (_steps(points) if axes.logarithmic else points)]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in _thin(places))


def _steps(points: Points) -> list[tuple[float, float]]:
    """A curve as stairs over the whole axis: at x, the highest share that is reached at x or before."""
    level = max((y for x, y in points if x <= FEWEST), default=0.0)
    stairs = [(FEWEST, level)]
    for x, y in sorted(points):
        if FEWEST < x <= MOST and y > level:
            stairs += [(x, level), (x, y)]
            level = y
    return [*stairs, (MOST, level)]


def _thin(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Drop points that are hardly away from the one before; first and last stay."""
    step = SMALLEST_STEP * WIDTH
    kept = places[:1]
    for before, place in itertools.pairwise(places):
        if abs(place[0] - kept[-1][0]) + abs(place[1] - kept[-1][1]) >= step:
            # The point before keeps corners sharp.
            kept += [before, place] if before != kept[-1] else [place]
    return kept if not places or kept[-1] == places[-1] else [*kept, places[-1]]
