"""`benchmark.csv`: what was planted in each case of a benchmark set."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnood.errors import UserError, one_error
from nnood.evaluation.benchmark.kinds import KINDS
from nnood.evaluation.results import NORMAL
from nnood.safety import write_text

TABLE, DESCRIPTION = "benchmark.csv", "benchmark.json"
HEADER = ("case", "source", "kind", "close_to", "size_mm", "volume_mm3", "strength", "changed", "seed")
SEPARATOR = "+"


@dataclass(frozen=True)
class Row:
    """One case of a benchmark.

    Attributes:
        case: Name of the case.
        source: Name of the case that it was made from; `foreign/NAME` if that is one of another data set.
        kind: A key of `KINDS`, or `normal`.
        close_to: Training tasks that the kind resembles.
        size_mm: Diameter of the anomaly; None for whole images and normal cases.
        volume_mm3: Of the mask, in 2D mm^2; 0 for normal cases.
        strength: Its meaning is said in the kind's summary; None for normal cases.
        changed: Share of the anomaly's voxels that changed visibly, 0 to 1.
        seed: By which `plant` makes the very case again; 0 for normal cases.
    """

    case: str
    source: str
    kind: str
    close_to: tuple[str, ...] = ()
    size_mm: float | None = None
    volume_mm3: float = 0.0
    strength: float | None = None
    changed: float = 0.0
    seed: int = 0

    @property
    def whole_image(self) -> bool:
        """Whether all of the image is anomalous, so that there is nothing to localise."""
        return self.kind != NORMAL and KINDS[self.kind].whole_image

    def cells(self) -> list[str]:
        """As written into the table."""
        numbers = (self.size_mm, self.volume_mm3, self.strength, self.changed)
        words = ["" if number is None else f"{number:.6g}" for number in numbers]
        return [self.case, self.source, self.kind, SEPARATOR.join(self.close_to), *words, str(self.seed)]


def write_benchmark(table: Path, rows: Sequence[Row]) -> None:
    """Write the table atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(row.cells() for row in rows)
    write_text(table, text.getvalue())


def read_benchmark(table: Path) -> dict[str, Row]:
    """Read and check `benchmark.csv`.

    Args:
        table: The file.

    Returns:
        Case name to row, in the order of the table.

    Raises:
        UserError: If there is no such file, its header is another, or rows are wrong; all of them are listed.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file)]
    except FileNotFoundError:
        raise UserError(f"{table} does not exist; make a benchmark with nnood_make_benchmark.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{table} is no CSV file ({error}); make the benchmark again.") from error
    if not lines or tuple(lines[0]) != HEADER:
        found = ",".join(lines[0]) if lines else "nothing"
        raise UserError(
            f"{table}: Expected the header {','.join(HEADER)}, but got {found!r}; make the benchmark again."
        )
    rows: dict[str, Row] = {}
    faults = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(line):
            continue
        try:
            row = _parse(line)
        except ValueError as error:
            faults.append(f"{table}, row {number}: {error}; correct it.")
            continue
        if row.case in rows:
            faults.append(f"{table}, row {number}: The case {row.case} was listed before; remove one of the rows.")
        rows[row.case] = row
    one_error(faults)
    return rows


def _parse(line: list[str]) -> Row:
    """One row.

    Raises:
        ValueError: Says what was expected and what came.
    """
    if len(line) != len(HEADER) or not line[0]:
        raise ValueError(f"Expected {len(HEADER)} values, the first a case, but got {','.join(line)!r}")
    cells = dict(zip(HEADER, line, strict=True))
    if cells["kind"] != NORMAL and cells["kind"] not in KINDS:
        raise ValueError(f"Expected a kind of {', '.join((NORMAL, *KINDS))}, but got {cells['kind']!r}")
    if not cells["seed"].isdecimal():
        raise ValueError(f"Expected a whole number as seed, but got {cells['seed']!r}")
    return Row(
        case=cells["case"],
        source=cells["source"],
        kind=cells["kind"],
        close_to=tuple(filter(None, cells["close_to"].split(SEPARATOR))),
        size_mm=_number(cells, "size_mm", 0, math.inf) if cells["size_mm"] else None,
        volume_mm3=_number(cells, "volume_mm3", 0, math.inf),
        strength=_number(cells, "strength", -math.inf, math.inf) if cells["strength"] else None,
        changed=_number(cells, "changed", 0, 1),
        seed=int(cells["seed"]),
    )


def _number(cells: dict[str, str], key: str, low: float, high: float) -> float:
    try:
        value = float(cells[key])
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        bounds = f" from {low:g} to {high:g}" if math.isfinite(low) else ""
        raise ValueError(f"Expected a number{bounds} as {key}, but got {cells[key]!r}")
    return value
