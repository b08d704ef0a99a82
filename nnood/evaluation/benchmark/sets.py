"""Benchmark sets: held-out normal cases of a data set with known, synthetic anomalies, in nnood's raw layout."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nnood.case_files import Cases, image_files
from nnood.datasets import Dataset, find_dataset_name, load_dataset
from nnood.errors import UserError, one_error
from nnood.evaluation.benchmark.cases import ENDING, FORMAT, RECEIPTS, Job, Order, make_cases
from nnood.evaluation.benchmark.kinds import FOREIGN, KINDS, MASKS, OPTIONS, choose_kinds
from nnood.evaluation.benchmark.planting import MIN_CHANGED, case_seed
from nnood.evaluation.benchmark.sources import foreground_method, foreign_cases, held_out_cases
from nnood.evaluation.benchmark.table import DESCRIPTION, TABLE, Row, read_benchmark, write_benchmark
from nnood.evaluation.results import NORMAL
from nnood.parallel import map_cases
from nnood.paths import Roots
from nnood.safety import describe_files, digest_of, read_json, remove_leftovers, write_json

__all__ = ["Row", "make_benchmark", "read_benchmark"]

FOLDERS = ("imagesTs", "labelsTs", RECEIPTS)
# What must be the same for a call to go on in a folder, and how a refusal words it.
IDENTITY = {
    "format": "version of the format",
    "dataset": "data set",
    "seed": "seed (--seed)",
    "fold": "fold (--fold)",
    "recipe": "recipe (-r)",
    "per_kind": "number of cases per kind",
    "kinds": "choice of kinds (--kinds)",
    "foreign": "foreign data set (--foreign)",
    "masks": "content of the folder of masks (--masks)",
    "sources": "list of held-out cases",
}

logger = logging.getLogger(__name__)


def make_benchmark(
    dataset: str,
    roots: Roots,
    output: Path,
    *,
    kinds: Sequence[str] = ("all",),
    seed: int = 0,
    fold: int | None = None,
    recipe: str = "nnood",
    per_kind: int = 20,
    masks: Path | None = None,
    foreign: str | None = None,
    processes: int = 1,
) -> list[Row]:
    """Make a test set from held-out normal cases, or go on with it. The same call makes bit-identical files.

    Args:
        dataset: Id or name of the data set.
        roots: The three root folders.
        output: Gets `imagesTs`, `labelsTs`, `dataset.json`, `benchmark.csv` and `benchmark.json`.
        kinds: Names of kinds and presets.
        seed: Seed of the whole set; each case depends on it, its kind, number and source only.
        fold: Take the cases that this fold leaves out, in the place of the test images.
        recipe: Name of the recipe that the fold is of.
        per_kind: Anomalous cases per kind.
        masks: Folder of masks of real lesions, one image each.
        foreign: Id or name of another data set.
        processes: Worker processes.

    Returns:
        One row per case, as in `benchmark.csv`: normal copies first.

    Raises:
        UserError: If the choice cannot be made, the folder holds something else, or cases are broken; the others are
            finished then.
    """
    for name, value, least in (("number of cases per kind", per_kind, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"The {name} is {value}; expected {least} or more.")
    given = [need for need, value in ((MASKS, masks), (FOREIGN, foreign)) if value is not None]
    chosen, left_out = choose_kinds(kinds, given)
    for kind in left_out:
        logger.info("Left out %s, which needs %s.", kind, OPTIONS[KINDS[kind].needs])
    raw = load_dataset(find_dataset_name(dataset, roots), roots)
    cases = held_out_cases(raw, roots, fold=fold, recipe=recipe)
    lesions = image_files(masks) if masks is not None and "lesions" in chosen else []
    foreign_name: str | None = None
    foreigners: Cases = {}
    if foreign is not None and FOREIGN in chosen:
        foreign_name, foreigners = foreign_cases(foreign, raw, next(iter(cases.values())), roots)
    description: dict[str, Any] = {
        "format": FORMAT,
        "dataset": raw.name,
        "seed": seed,
        "fold": fold,
        "recipe": None if fold is None else recipe,
        "per_kind": per_kind,
        "kinds": {name: _described(name) for name in chosen},
        "foreign": foreign_name,
        "masks": digest_of(describe_files(lesions)) if lesions else None,
        "sources": sorted(cases),
    }
    earlier = _open(output, description)
    method = earlier or foreground_method(raw, roots, cases, processes=processes)
    write_json(output / DESCRIPTION, description | {"foreground": method})
    base = Job("", (), raw.channels, method, (), output, tuple(lesions))
    jobs = _jobs(base, cases, foreigners, chosen, seed=seed, per_kind=per_kind)
    return _finish(raw, output, jobs, chosen, processes=processes)


def _described(name: str) -> dict[str, Any]:
    """A kind, for `benchmark.json`."""
    kind = KINDS[name]
    return {
        "summary": kind.summary,
        "close_to": list(kind.close_to),
        "whole_image": kind.whole_image,
        "source": kind.source,
    }


def _open(output: Path, description: dict[str, Any]) -> str | None:
    """Check that the folder is new, or holds this very benchmark; then return its method for the foreground."""
    file = output / DESCRIPTION
    if not file.is_file():
        if output.is_dir() and any(not path.name.startswith(".") for path in output.iterdir()):
            raise UserError(f"{output} holds files that belong to no benchmark; choose an empty or new folder (-o).")
        return None
    earlier = read_json(file)
    for key, words in IDENTITY.items():
        found = earlier.get(key) if isinstance(earlier, dict) else None
        wanted = description[key]
        if key == "kinds":
            found, wanted = list(found or ()), list(wanted)
        if found != wanted:
            raise UserError(f"{output} holds another benchmark, with another {words}; choose another folder (-o).")
    for folder in (".", *FOLDERS):
        remove_leftovers(output / folder)
    return str(earlier["foreground"])


def _jobs(
    base: Job, cases: Cases, foreigners: Cases, kinds: Sequence[str], *, seed: int, per_kind: int
) -> dict[str, Job]:
    """Distribute the cases to make over their sources."""
    orders: dict[tuple[bool, str], list[Order]] = defaultdict(list)
    for source in cases:
        orders[False, source].append(Order(f"{NORMAL}_{source}", NORMAL, 0))
    for kind in kinds:
        is_foreign = KINDS[kind].needs == FOREIGN
        names = sorted(foreigners if is_foreign else cases)
        # Not shuffled by the numbers of the kinds: each kind's choice is independent of which others are asked for.
        sequence = np.random.default_rng(case_seed(seed, kind, 0, "order of the sources")).permutation(len(names))
        for number in range(per_kind):
            source = names[sequence[number % len(names)]]
            order = Order(f"{kind}_{number:02d}_{source}", kind, case_seed(seed, kind, number, source))
            orders[is_foreign, source].append(order)
    jobs = {}
    for (is_foreign, source), made in orders.items():
        files = tuple((foreigners if is_foreign else cases)[source])
        method = "whole" if is_foreign else base.foreground
        name = f"foreign/{source}" if is_foreign else source
        jobs[name] = replace(base, source=name, files=files, foreground=method, orders=tuple(made))
    return jobs


def _finish(raw: Dataset, output: Path, jobs: dict[str, Job], kinds: Sequence[str], *, processes: int) -> list[Row]:
    """Work the jobs off, then write the tables."""
    arguments = {name: (job,) for name, job in jobs.items()}
    made, faults = map_cases(make_cases, arguments, processes=processes, description="Making the benchmark")
    faults += [fault for _, own in made.values() for fault in own]
    one_error(list(dict.fromkeys(faults)))
    order = [NORMAL, *kinds]
    rows = [row for found, _ in made.values() for row in found]
    rows.sort(key=lambda row: (order.index(row.kind), row.case))
    faint = sum(row.kind != NORMAL and row.changed < MIN_CHANGED for row in rows)
    if faint:
        logger.info("In %d cases, less than half of the anomaly is visible; see 'changed' in %s.", faint, TABLE)
    write_json(
        output / "dataset.json",
        {"channel_names": raw.nnunet_json()["channel_names"], "numTraining": 0, "file_ending": ENDING},
    )
    write_benchmark(output / TABLE, rows)
    return rows
