"""The parts of a report with figures of all cases together, per kind and per size."""

from collections.abc import Collection, Mapping, Sequence

from nnood.evaluation.report.curves import draw_curves
from nnood.evaluation.report.html import (
    Html,
    cell,
    element,
    figure_text,
    html,
    join,
    number_cell,
    paragraph,
    section,
    table,
)
from nnood.evaluation.results import FIGURES, Evaluation, Figure, Group
from nnood.evaluation.tables import GROUP_FIGURES

HEADLINES = ("voxel_ap", "voxel_best_dice", "object_recall", "sample_ap", "sample_auroc")
OF_SAMPLES = "sample_"  # the keys of figures that a case has even if it is anomalous as a whole begin so
NOTHING_TO_LOCALISE = "anomalous as a whole: nothing to localise"
NEAR = "\N{ALMOST EQUAL TO}"


def headline_cards(evaluation: Evaluation) -> Html:
    """The most telling figures, large; an undefined one is left out."""
    cases = f"{evaluation.anomalous_cases} anomalous, {evaluation.normal_cases} normal"
    cards = [
        _card(
            "Cases",
            str(evaluation.anomalous_cases + evaluation.normal_cases),
            cases,
            Html('<span class="meter" style="visibility:hidden"></span>'),
        )
    ]
    for key in HEADLINES:
        figure = evaluation.figures.get(key)
        if figure is not None and figure.value is not None:
            cards.append(_card(_capital(FIGURES[key]), f"{figure.value:.3f}", _below(figure), meter(figure)))
    return element("div", join(cards), class_="cards")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _card(name: str, value: str, below: str, bar: Html | str = "") -> Html:
    parts = [paragraph(name, class_="card-name"), paragraph(value, class_="card-value"), bar, paragraph(below)]
    return element("div", join(parts), class_="card")


def _below(figure: Figure) -> str:
    parts = []
    if figure.low is not None and figure.high is not None:
        parts.append(f"95 %: {interval(figure)}")
    if figure.chance is not None:
        parts.append(f"chance {figure.chance:.3f}")
    return ", ".join(parts)


def interval(figure: Figure) -> str:
    """The ends of the interval; empty if there is none."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{figure.low:.3f} to {figure.high:.3f}"


def meter(figure: Figure) -> Html:
    """A bar of the figure's length, with a mark at the chance level."""
    if figure.value is None:
        return Html()
    mark = ""
    if figure.chance is not None:
        mark = element("i", style=f"left:{100 * min(max(figure.chance, 0), 1):.1f}%")
    bar = element("b", style=f"width:{100 * min(max(figure.value, 0), 1):.1f}%")
    return element("span", Html(bar + mark), class_="meter", aria_hidden="true")


def describe_figures(evaluation: Evaluation, baselines: Mapping[str, Evaluation]) -> Html:
    """The section with the table of all pooled figures and the notes."""
    evaluations = [evaluation, *baselines.values()]
    header = ["Figure", "Value", "95 % interval", "Chance", *baselines]
    rows, undefined = [], []
    for key, name in FIGURES.items():
        figures = [one.figures.get(key, Figure(None)) for one in evaluations]
        if all(figure.value is None for figure in figures):
            undefined.append(name)
            continue
        own, *others = figures
        chance = "–" if own.chance is None else figure_text(own.chance)  # noqa: RUF001
        rows.append(
            [
                _capital(name),
                number_cell(element("strong", figure_text(own.value)), own.value),
                number_cell(interval(own) or "–"),  # noqa: RUF001
                number_cell(chance, own.chance),
                *(number_cell(figure_text(figure.value), figure.value) for figure in others),
            ]
        )
    parts: list[object] = [paragraph(_thresholds(evaluation))] if _thresholds(evaluation) else []
    parts += [table(header, rows)] if rows else []
    if undefined:
        parts.append(paragraph(f"Undefined here: {', '.join(undefined)}.", class_="note"))
    if evaluation.notes:
        notes = join(element("li", note) for note in evaluation.notes)
        parts.append(element("ul", notes, class_="note"))
    return section("figures", "Figures", *parts)


def _thresholds(evaluation: Evaluation) -> str:
    parts = []
    if evaluation.threshold is not None:
        parts.append(f"A voxel counts as anomalous from a score of {evaluation.threshold:.3f} on.")
    if evaluation.best_threshold is not None:
        parts.append(f"The best Dice is reached at a score of {evaluation.best_threshold:.3f}.")
    return " ".join(parts)


def describe_curves(evaluation: Evaluation, baselines: Mapping[str, Evaluation]) -> Html:
    """The section with the curves; empty if none is defined."""
    drawn = draw_curves(evaluation, baselines)
    return section("curves", "Curves", element("div", join(drawn), class_="curves")) if drawn else Html()


def describe_groups(evaluation: Evaluation) -> Html:
    """The section with the figures per kind and per size; empty if there are no groups."""
    groups = evaluation.groups
    parts: list[object] = []
    kinds = [group for group in groups if group.by == "kind"]
    others = list(dict.fromkeys(group.by for group in groups if group.by != "kind"))
    shown = [key for key in GROUP_FIGURES if any(_figure(group, key).value is not None for group in groups)]
    if kinds:
        parts.append(_group_table("Kind of anomaly", kinds, shown, _whole_kinds(evaluation)))
        if any(group.close_to for group in kinds):
            parts.append(
                paragraph(
                    f"{NEAR} close to a task that the networks trained on, or to any task where that is unknown.",
                    class_="note",
                )
            )
    for by in others:
        parts.append(_group_table(by.capitalize(), [group for group in groups if group.by == by], shown))
    if not parts:
        return Html()
    compared = "Each group is compared with all normal cases"
    marked = any(_figure(group, key).chance is not None for group in groups for key in shown)
    parts.insert(0, paragraph(f"{compared}; the mark on a bar is the chance level." if marked else f"{compared}."))
    return section("groups", "Kinds and sizes" if kinds and others else "Kinds" if kinds else "Sizes", *parts)


def _figure(group: Group, key: str) -> Figure:
    return group.figures.get(key, Figure(None))


def _whole_kinds(evaluation: Evaluation) -> set[str]:
    """Kinds that befall the whole image: there are masks, but none of their cases has a size."""
    if evaluation.dimensions is None:
        return set()
    anomalous = [case for case in evaluation.cases if case.anomalous]
    return {case.kind for case in anomalous} - {case.kind for case in anomalous if case.size is not None}


def _group_table(
    name: str, groups: Sequence[Group], shown: Sequence[str], whole: Collection[str] = frozenset()
) -> Html:
    rows = []
    for group in groups:
        title = html(group.name)
        if group.close_to:
            near = f"close to the task {', '.join(group.close_to)}"
            sign = element("span", NEAR, class_="near", role="img", title=near, aria_label=near)
            title = Html(f"{title} {sign}")
        cells = [_group_cell(_figure(group, key), key, whole=group.name in whole) for key in shown]
        rows.append([title, number_cell(group.cases, group.cases), *cells])
    return table([name, "Cases", *(_capital(FIGURES[key]) for key in shown)], rows, class_="aligned")


def _group_cell(figure: Figure, key: str, *, whole: bool) -> Html:
    if whole and figure.value is None and not key.startswith(OF_SAMPLES):
        return cell(element("span", "–", title=NOTHING_TO_LOCALISE, class_="undefined"))  # noqa: RUF001
    return _figure_cell(figure)


def _figure_cell(figure: Figure) -> Html:
    if figure.value is None:
        return cell(figure_text(None))
    value = element("span", figure_text(figure.value), class_="metered")
    small = element("small", interval(figure))
    return cell(join((value, meter(figure), small)), data_sort=f"{figure.value:.9g}")
