"""Which cases belong together, such as those of one patient: read from a table or out of the names of the cases."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from nnood.datasets import GROUPS_FILE
from nnood.errors import UserError, one_error


def find_groups(text: str, cases: Sequence[str]) -> dict[str, str]:
    """The group of each case.

    Args:
        text: A CSV file with the header `case,group`; or else a regular expression, whose first bracket (or all of
            what it matches) is the group.
        cases: All training cases.

    Raises:
        UserError: If the file or the expression is faulty, or does not give each case a group.
    """
    if text.lower().endswith(".csv"):
        return _groups_of_table(Path(text), cases)
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(
            f"--groups {text!r} is no regular expression ({error}); correct it, or give a file NAME.csv."
        ) from error
    matches = {case: pattern.search(case) for case in cases}
    found = {case: match[1 if pattern.groups else 0] for case, match in matches.items() if match}
    without = [case for case in cases if not found.get(case)]
    if without:
        raise UserError(
            f"--groups {text!r} finds no group in the name of {len(without)} of {len(cases)} cases, such as "
            f"{without[0]}; correct the regular expression, or give a file NAME.csv."
        )
    return found


def recorded_groups(raw: Path, cases: Sequence[str]) -> dict[str, str] | None:
    """The groups that come with a raw data set, in its `groups.csv`; None if it has no such file.

    Args:
        raw: The raw data set.
        cases: All planned training cases; the file may list others, which came after planning.

    Raises:
        UserError: If the file is faulty or does not give each case a group.
    """
    table = raw / GROUPS_FILE
    return _groups_of_table(table, cases, may_list_others=True) if table.is_file() else None


def _groups_of_table(table: Path, cases: Sequence[str], *, may_list_others: bool = False) -> dict[str, str]:
    """Read `case,group` rows."""
    if not table.is_file():
        raise UserError(f"{table} does not exist; correct the name (--groups).")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{table} is no CSV file in UTF-8 ({error}); save it as one.") from error
    if not rows or rows[0] != ["case", "group"]:
        header = repr(",".join(rows[0])) if rows else "nothing"
        raise UserError(f"{table}: Expected the header case,group, but got {header}; correct it.")
    found: dict[str, str] = {}
    faults = []
    for line, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        if len(row) != 2 or not all(row):
            faults.append(f"{table}, row {line}: Expected a case and a group, but got {','.join(row)!r}; correct it.")
        elif row[0] in found:
            faults.append(f"{table}, row {line}: The case {row[0]} was listed before; remove one of the rows.")
        else:
            found[row[0]] = row[1]
    known = {*cases, *found} if may_list_others else set(cases)
    faults += [f"{table} lists the unknown case {case}; correct it." for case in found if case not in known]
    faults += [f"{table} does not list the case {case}; add it." for case in cases if case not in found]
    one_error(faults)
    return {case: found[case] for case in cases}
