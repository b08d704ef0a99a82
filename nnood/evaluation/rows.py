"""Sparse rows of binned counts, one per case, and scores with their truth: what weights of the cases are applied to."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from nnood.evaluation.histogram import coarse_scores
from nnood.evaluation.metrics import Counts

_CHUNK = 4_000_000


def make_row(bins: np.ndarray, values: np.ndarray) -> csr_array:
    """Sums of values per coarse bin, (1, N); in numbers of 4 bytes, because there is a row per case."""
    used = np.flatnonzero(values)
    number = np.float32 if values.dtype.kind == "f" else np.int32
    places = (np.zeros(len(used), dtype=np.int32), bins[used].astype(np.int32))
    row = csr_array((values[used], places), shape=(1, len(coarse_scores())))
    row.sum_duplicates()
    row.data = row.data.astype(number)
    return row


def weighted_sum(rows: Sequence[csr_array], weights: np.ndarray) -> np.ndarray:
    """The sum of rows, each times its weight, (N,); without an array of all of them."""
    total = np.zeros(len(coarse_scores()))
    for row, weight in zip(rows, weights, strict=True):
        if weight:
            total[row.indices] += weight * row.data
    return total


def even_bins(positives: np.ndarray, negatives: np.ndarray, number: int) -> np.ndarray:
    """Where to begin bins that hold about equal shares of positives and of negatives, so that a few are enough.

    Args:
        positives: Per coarse bin.
        negatives: Per coarse bin.
        number: About how many.
    """
    used = np.flatnonzero(positives + negatives)
    share = sum(np.cumsum(values)[used] / max(1, values.sum()) for values in (positives, negatives))
    _, first = np.unique(np.floor(share * number / 2), return_index=True)
    return used[first]


def merge_rows(rows: Sequence[csr_array], starts: np.ndarray) -> np.ndarray:
    """Rows with the bins from each start to the next summed, (rows, starts); before the first there is nothing."""
    places = (np.searchsorted(starts, row.indices, side="right") - 1 for row in rows)
    return np.stack([np.bincount(p, row.data, len(starts)) for p, row in zip(places, rows, strict=True)])


def chunks(weights: np.ndarray, width: int) -> list[np.ndarray]:
    """Split rows so that (rows, width) arrays stay small."""
    return np.array_split(weights, -(-len(weights) * max(1, width) // _CHUNK) or 1)


class Ranked:
    """Scores with their truth, each belonging to a case, sorted once."""

    def __init__(self, scores: np.ndarray, truth: np.ndarray, case: np.ndarray) -> None:
        """Sort.

        Args:
            scores: Any finite values, (M,).
            truth: Bool, (M,).
            case: Index of the case that each belongs to, (M,).
        """
        order = np.argsort(scores)
        self._scores, self._starts = np.unique(scores[order], return_index=True)
        self._truth, self._case = truth[order], case[order]
        self.size = scores.size

    def prevalence(self, chosen: np.ndarray) -> float:
        """Share of positives among those of the chosen cases."""
        return float(self._truth[chosen[self._case]].mean())

    def negatives(self, chosen: np.ndarray) -> int:
        """Number of negatives of the chosen cases."""
        return int((~self._truth[chosen[self._case]]).sum())

    def counts(self, weights: np.ndarray) -> Counts:
        """Counts for weights of the cases (R, cases)."""
        each = weights[:, self._case]
        positives, negatives = (
            np.add.reduceat(each * which, self._starts, axis=1) for which in (self._truth, ~self._truth)
        )
        return Counts(self._scores, positives, negatives)
