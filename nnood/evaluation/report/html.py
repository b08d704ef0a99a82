"""HTML from data: everything is escaped unless it says that it is HTML."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from nnood.evaluation.tables import UNDEFINED
from nnood.safety import plain


class Html(str):
    """Text that is HTML already; any other string is escaped when it is put into a page."""

    __slots__ = ()


def html(value: object) -> Html:
    """A value as HTML: escaped, unless it is HTML already."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def join(parts: Iterable[object]) -> Html:
    """Put parts one below the other."""
    return Html("\n".join(html(part) for part in parts))


def element(tag: str, content: object = "", /, **attributes: object) -> Html:
    """One element.

    Args:
        tag: Its name.
        content: Escaped unless HTML.
        **attributes: Escaped; None leaves one out, True gives one without a value. `class_` stands for class and
            `data_sort` for data-sort.
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items() if value is not None)
    return Html(f"<{tag}{written}>{html(content)}</{tag}>")


def _attribute(name: str, value: object) -> str:
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


def cell(content: object, **attributes: object) -> Html:
    """A cell of a table."""
    return element("td", content, **attributes)


def number_cell(text: object, value: float | None = None) -> Html:
    """A cell with a number: aligned to the right, sorted by its value."""
    return cell(text, class_="number", data_sort="" if value is None else f"{value:.9g}")


def table(
    header: Sequence[object], rows: Iterable[Sequence[object]], *, caption: object = "", class_: str | None = None
) -> Html:
    """A table in a box of its own, so that a wide one scrolls there and not with the page.

    Args:
        header: One per column.
        rows: Cells; what is not an element `td` becomes one. The first names its row.
        caption: Above the table, if any.
        class_: Of the table.
    """
    cells = [_cells(row) for row in rows]
    numeric = {i for row in cells for i, content in enumerate(row) if content.startswith('<td class="number"')}
    head = [
        element("th", name, scope="col", class_="number" if i in numeric else None) for i, name in enumerate(header)
    ]
    above = element("caption", caption) if caption else Html()
    body = join(element("tr", join(row)) for row in cells)
    inner = join((above, element("thead", element("tr", join(head))), element("tbody", body)))
    return table_box(element("table", inner, class_=class_), str(caption) or str(header[0]))


def table_box(content: Html, name: str, *, class_: str = "") -> Html:
    """The box around a table; it can have the focus, so that the keyboard scrolls it."""
    kinds = f"table-box {class_}".strip()
    return element("div", content, class_=kinds, tabindex=0, role="region", aria_label=f"Table: {name}")


def _cells(row: Sequence[object]) -> list[Html]:
    first, *others = row
    return [element("th", first, scope="row"), *(_as_cell(content) for content in others)]


def _as_cell(content: object) -> Html:
    if isinstance(content, Html) and content.startswith("<td"):
        return content
    return cell(content, class_="number" if isinstance(content, int | float) else None)


def definitions(entries: Mapping[str, object]) -> Html:
    """Names and what they stand for; entries that are empty are left out."""
    pairs = [
        element("div", join((element("dt", name), element("dd", value))))
        for name, value in entries.items()
        if value is not None and str(value)
    ]
    return element("dl", join(pairs))


def section(name: str, title: str, *content: object) -> Html:
    """A part of the page that can be jumped to by its name."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", join((heading, *content)), id=name, aria_labelledby=f"{name}-title")


def paragraph(text: object, **attributes: object) -> Html:
    """A paragraph."""
    return element("p", text, **attributes)


def embedded_json(content: Any) -> Html:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(plain(content), allow_nan=False, separators=(",", ":"))
    return Html(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def figure_text(value: float | None, digits: int = 3) -> Html:
    """A figure, or that it is undefined."""
    if value is None:
        return element("span", UNDEFINED, class_="undefined")
    return html(f"{value:.{digits}f}")


def short(value: float) -> str:
    """A number of any size with about four digits, with a true minus sign."""
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
