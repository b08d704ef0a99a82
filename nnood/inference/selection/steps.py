"""Which post-processing steps, each fitted on the judged images and kept only if it helps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnood.inference.postprocessing import Step
from nnood.inference.selection.combined import Combined, Steps
from nnood.inference.selection.ensembles import Ledger
from nnood.inference.selection.figures import Judgement, Tally

DILATIONS = (0.0, 2.0, 5.0, 10.0)  # voxels
SIGMAS = (0.5, 1.0, 1.5, 2.5, 4.0)  # voxels
FALSE_POSITIVE_RATES = (0.01, 0.001)
VOLUME_PERCENTILES = (50, 90, 99)
JUST_MORE = 1.001  # than a volume, so that regions of this very volume are removed too
STAGES = {"restrict_to_foreground": "foreground", "smooth": "smoothing", "remove_small": "small regions"}
PLAINEST = "none"


def choose_steps(
    combined: Combined, judgement: Judgement, ledger: Ledger, *, voxel_mm: float, has_foreground: bool
) -> Steps:
    """Try foreground restriction, smoothing, and the removal of small regions, in this order.

    Args:
        combined: The chosen ensemble.
        judgement: Of its images.
        ledger: Gets all candidates.
        voxel_mm: Typical edge of a voxel, by which distances are scaled.
        has_foreground: Whether a foreground can be found in new images and is not simply all of them.
    """
    steps: Steps = ()
    current = combined.tallies([steps], title="Reading score maps")[0]
    if has_foreground:
        candidates = [Step("restrict_to_foreground", {"dilation_mm": n * voxel_mm}) for n in DILATIONS]
        steps, current = _keep_best(combined, judgement, ledger, steps, current, candidates)
    else:
        ledger.notes.append(
            "The foreground is the whole image or the user's own masks: scores are not restricted to it."
        )
    candidates = [Step("smooth", {"sigma_mm": n * voxel_mm}) for n in SIGMAS]
    steps, current = _keep_best(combined, judgement, ledger, steps, current, candidates)
    candidates = _removals(combined, steps)
    return _keep_best(combined, judgement, ledger, steps, current, candidates)[0]


def _keep_best(
    combined: Combined,
    judgement: Judgement,
    ledger: Ledger,
    steps: Steps,
    current: Tally,
    candidates: Sequence[Step],
) -> tuple[Steps, Tally]:
    """Add the fitted step if it beats going without; among its parameters the best one stands for it."""
    if not candidates:
        return steps, current
    stage = STAGES[candidates[0].kind]
    ledger.start(stage, PLAINEST, "voxel_ap", judgement.voxel_ap(current))
    tries = [(*steps, candidate) for candidate in candidates]
    tallies = combined.tallies(tries, title=f"Trying to {candidates[0].kind.replace('_', ' ')}")
    comparisons = [judgement.compare(tally, current) for tally in tallies]
    for candidate, comparison in zip(candidates, comparisons, strict=True):
        ledger.add(stage, _name(candidate), "voxel_ap", comparison)
    best = int(np.argmax([comparison.gain if np.isfinite(comparison.gain) else -1 for comparison in comparisons]))
    if not comparisons[best].wins:
        return steps, current
    ledger.choose(stage, _name(candidates[best]))
    return tries[best], tallies[best]


def _removals(combined: Combined, steps: Steps) -> list[Step]:
    """Thresholds at given false-positive rates on clean images, with volumes of the regions that reach them there."""
    normal = combined.normal_counts(steps, title="Looking at clean images")
    if not normal.scores.size:
        return []
    share = np.cumsum(normal.negatives[::-1])[::-1] / normal.negatives.sum()
    reached = [np.flatnonzero(share <= rate) for rate in FALSE_POSITIVE_RATES]
    thresholds = sorted({float(normal.scores[indices[0]]) for indices in reached if len(indices)})
    volumes = combined.false_volumes(steps, thresholds, title="Looking at false regions") if thresholds else []
    candidates: list[dict[str, Any]] = []
    for threshold, found in zip(thresholds, volumes, strict=True):
        limits = sorted(set(np.percentile(found, VOLUME_PERCENTILES).tolist())) if len(found) else []
        candidates += [{"threshold": threshold, "volume_mm3": limit * JUST_MORE} for limit in limits]
    return [Step("remove_small", candidate) for candidate in candidates]


def _name(step: Step) -> str:
    """Parameters in words, different ones in different words."""
    return ", ".join(f"{name} {value:.6g}" for name, value in step.parameters.items())
