"""Tables that come with published data sets: CSV or TSV files with a header."""

import csv
from collections.abc import Sequence
from pathlib import Path

from nnood.errors import UserError

Row = dict[str, str]


def read_table(table: Path, columns: Sequence[str], *, separator: str = ",") -> list[Row]:
    """Read a table whose first line names the columns.

    Args:
        table: The file, in UTF-8.
        columns: Names of columns that must be there.
        separator: Between cells.

    Returns:
        One dictionary per line, without blanks around values; cells that a line lacks are empty.

    Raises:
        UserError: If the file is missing, is no such table, or holds no lines.
    """
    if not table.is_file():
        raise UserError(f"{table} does not exist; give the folder in which the data set was unpacked.")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file, delimiter=separator)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{table} is no table in UTF-8 ({error}); replace the file by an intact copy.") from error
    header = lines[0] if lines else []
    if missing := [column for column in columns if column not in header]:
        raise UserError(f"{table} lacks the column(s) {', '.join(missing)}; replace the file by an intact copy.")
    rows = [dict.fromkeys(header, "") | dict(zip(header, line, strict=False)) for line in lines[1:] if any(line)]
    if not rows:
        raise UserError(f"{table} has a header only; replace the file by an intact copy.")
    return rows
