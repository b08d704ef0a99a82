"""One score per patch, by its error, its ELBO or an outlier detector on its code, and one per case from its patches."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from nnood.errors import UserError
from nnood.reconstruction.detector_kinds import DETECTORS
from nnood.reconstruction.detectors import LatentDetector, relative_score
from nnood.reconstruction.network import PatchValues

OWN_SCORES = ("error", "elbo")
PATCH_SCORES = (*OWN_SCORES, *DETECTORS)


def _top_fifth(scores: np.ndarray) -> float:
    return float(np.sort(scores)[-max(1, round(len(scores) / 5)) :].mean())


# From the scores of a case's patches to one of the case.
PATCH_COMBINATIONS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda scores: float(scores.mean()),
    "max": lambda scores: float(scores.max()),
    "top_fifth": _top_fifth,
}


class PatchScorer:
    """What a network's patches are worth beside those of its training cases; detectors are fitted when first asked."""

    def __init__(self, training: Mapping[str, torch.Tensor]) -> None:
        """Take over what a checkpoint knows.

        Args:
            training: Of patches of normal training cases: `codes` (N, D), `error` (N,) and `elbo` (N,).

        Raises:
            UserError: If it knows nothing.
        """
        if not training:
            raise UserError(
                "Patches cannot be scored by the latest checkpoint of a training, which knows no others; choose the "
                "best or the final one."
            )
        self._training = {key: values.numpy().astype(np.float64) for key, values in training.items()}
        self._detectors: dict[str, LatentDetector] = {}

    def detector(self, name: str) -> LatentDetector:
        """An outlier detector on the training patches' codes.

        Raises:
            UserError: If PyOD is not installed.
            ValueError: If there are too few codes.
        """
        if name not in self._detectors:
            self._detectors[name] = LatentDetector.fit(name, self._training["codes"])
        return self._detectors[name]

    def __call__(self, kind: str, values: PatchValues) -> np.ndarray:
        """Scores of patches.

        Args:
            kind: One of `PATCH_SCORES`.
            values: Of N patches.

        Returns:
            (N,) in [0, 1], 1/2 for the median of the training patches.
        """
        if kind in OWN_SCORES:
            return relative_score(getattr(values, kind).numpy().astype(np.float64), self._training[kind])
        return self.detector(kind)(values.codes.numpy().astype(np.float64))
