"""One anomalous case from a normal one and a seed."""

import hashlib
import json

import numpy as np

from nnood.evaluation.benchmark.kinds import KINDS
from nnood.evaluation.benchmark.lesions import Lesion
from nnood.evaluation.benchmark.subjects import Draw, Planted, Subject

# Combinations that a kind may go through; the remainder of a case's seed by this number picks one.
VARIANTS = 20
TRIES = 5
MIN_CHANGED = 0.5


def case_seed(seed: int, kind: str, number: int, source: str) -> int:
    """The seed of one case: below 2^53, and its remainder by `VARIANTS` is that of the number."""
    digest = hashlib.sha256(json.dumps([seed, kind, number, source]).encode()).digest()
    return VARIANTS * int.from_bytes(digest[:6], "big") + number % VARIANTS


def plant(kind: str, subject: Subject, seed: int, found: Lesion | None = None) -> Planted:
    """Make one anomalous case.

    What changes fewer than half of its voxels visibly is drawn anew, a few times at most; then the best one is kept.

    Args:
        kind: A key of `KINDS`.
        subject: A normal case; it is not modified.
        seed: Decides everything.
        found: A real lesion, for the kind that needs one.
    """
    best: Planted | None = None
    for attempt in range(TRIES):
        draw = Draw(np.random.default_rng([seed, attempt]), seed % VARIANTS, found)
        planted = KINDS[kind].build(subject, draw)
        if best is None or planted.changed > best.changed:
            best = planted
        if best.changed >= MIN_CHANGED:
            break
    if best is None:
        raise ValueError("Expected at least one try.")
    return best
