"""Put a model from an archive among the results, where all commands find it: whole, or not at all."""

from functools import partial
from pathlib import Path

from nnood.datasets import dataset_names, dataset_number
from nnood.errors import UserError
from nnood.paths import Roots
from nnood.safety import flush
from nnood.sharing.archive import open_archive
from nnood.sharing.checks import load_model
from nnood.sharing.workshop import flush_all, workshop

WORKSHOP, NEW, OLD = "installing", "new", "old"


def install_model(file: Path, roots: Roots, *, force: bool = False) -> Path:
    """Verify an archive, and unpack it beside the results and then into them by one renaming.

    Args:
        file: As `nnood_export` wrote it.
        roots: The three root folders; the results' one is made if needed.
        force: Whether results of the same data set are replaced. They are put aside until the new ones stand.

    Returns:
        The data set's folder among the results.

    Raises:
        UserError: If the archive is damaged, was tampered with, or was written by a newer nnood; the data set has
            results already; or another data set has its id.
    """
    with open_archive(file) as archive:
        name = archive.manifest.dataset
        target = roots.results / name
        _refuse_same_id(name, roots, file)
        with workshop(roots.results, WORKSHOP, partial(_take_back, results=roots.results)) as folder:
            if not force and target.exists() and any(target.iterdir()):
                raise UserError(f"{target} holds results already; add --force to replace them by those of {file}.")
            new = archive.unpack(folder / NEW)
            load_model(new, file)
            flush_all(new)
            _exchange(new, target, folder / OLD / name)
    return target


def _exchange(new: Path, target: Path, old: Path) -> None:
    """Give the new folder its name, and put aside what has it.

    Where the process dies between both renamings, the next call takes the first one back.
    """
    if target.exists():
        old.parent.mkdir()
        target.rename(old)
    new.rename(target)
    flush(target.parent)


def _take_back(folder: Path, results: Path) -> None:
    """Bring back what was put aside, unless the new stands in its place."""
    for old in (folder / OLD).glob("*"):
        if not (results / old.name).exists():
            old.rename(results / old.name)


def _refuse_same_id(name: str, roots: Roots, file: Path) -> None:
    """Refuse where another data set has the same id, by which commands could then no longer name either."""
    for other in dataset_names(roots):
        if other != name and dataset_number(other) == dataset_number(name):
            raise UserError(f"{file} holds {name}, but {other} has the same id; rename or remove that data set first.")
