"""What the figures of voxels cost, against scikit-learn on the same voxels, and how much memory a large test set takes.

    pip install scikit-learn
    python benchmarks/metrics.py --repeats 3 --volumes 10
    python benchmarks/metrics.py --repeats 0 --volumes 500 --no_objects

First, average precision, AUROC, AUROC up to 30 % false positives and best Dice of one volume: counting and all four
figures, against scikit-learn's average precision and AUROC alone, in turns and in one thread; medians. Then a test set
of random volumes, made one at a time, through the evaluation (the file system is left out, and so is the time that it
takes to make a volume). Their scores are all different, so that as many bins as can be are kept. The memory is the
highest of the whole process, with Python, its libraries, the volume at hand and the making of it.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from scipy import ndimage

from nnood.evaluation.evaluate import Evaluator, ScoredCase
from nnood.evaluation.histogram import ScoreHistogram, count_bins
from nnood.evaluation.metrics import auroc, average_precision, best_dice
from nnood.evaluation.truth import Truth
from nnood.geometry import Geometry
from nnood.scores import sample_score

ANOMALOUS = 0.01
COARSE = 32
LIMIT = 0.3
ROUNDS = 1000


def squash(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A sigmoid of normally distributed values, higher inside anomalies, in place."""
    scores *= -3
    scores += 6
    scores[truth] -= 5
    np.exp(scores, out=scores)
    scores += 1
    return np.reciprocal(scores, out=scores)


def sigmoid(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """A smooth map, crowded near 0, as a network's last layer gives it."""
    field = rng.standard_normal((COARSE,) * 3, dtype=np.float32)
    return squash(ndimage.zoom(field, [n / COARSE for n in truth.shape], order=1), truth)


def continuous(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """Every voxel a score of its own, over many orders of magnitude."""
    return squash(rng.standard_normal(truth.shape, dtype=np.float32), truth)


def uniform(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """Evenly spread, a little higher inside anomalies."""
    scores = rng.random(truth.shape, dtype=np.float32)
    scores[truth] **= 0.5
    return scores


def ties(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """A hundred and one different scores."""
    scores = uniform(rng, truth)
    scores *= 100
    np.rint(scores, out=scores)
    scores /= 100
    return scores


DISTRIBUTIONS = {"smooth, crowded near 0": sigmoid, "uniform": uniform, "101 distinct scores": ties}


def balls(rng: np.random.Generator, edge: int) -> np.ndarray:
    """Truth: three balls that fill about `ANOMALOUS` of the volume."""
    truth = np.zeros((edge,) * 3, dtype=bool)
    radius = max(1, round(edge * (ANOMALOUS / 3 * 3 / 4 / np.pi) ** (1 / 3)))
    ball = sum(axis**2 for axis in np.ogrid[(slice(-radius, radius + 1),) * 3]) <= radius**2
    for _ in range(3):
        corner = rng.integers(0, edge - 2 * radius, size=3)
        truth[tuple(slice(start, start + 2 * radius + 1) for start in corner)] |= ball
    return truth


def figures(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """All figures; AP and AUROC are returned."""
    histogram = ScoreHistogram()
    histogram.add(count_bins(scores, truth))
    counts = histogram.counts()
    auroc(counts, limit=LIMIT)
    best_dice(counts)
    return float(average_precision(counts)), float(auroc(counts))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print Markdown."""
    for row in (head, ("---",) * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def timed(call: Callable[[], tuple[float, float]], seconds: list[float]) -> tuple[float, float]:
    """Call, and note how long it took."""
    start = time.perf_counter()
    result = call()
    seconds.append(time.perf_counter() - start)
    return result


def against_scikit_learn(edge: int, repeats: int) -> None:
    """One volume per distribution."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    def reference(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
        flat_truth, flat_scores = truth.ravel(), scores.ravel()
        return average_precision_score(flat_truth, flat_scores), roc_auc_score(flat_truth, flat_scores)

    rows: list[tuple[str, ...]] = []
    for name, make in DISTRIBUTIONS.items():
        rng = np.random.default_rng(0)
        truth = balls(rng, edge)
        scores = make(rng, truth)
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(repeats):
            found = timed(partial(figures, scores, truth), ours)
            exact = timed(partial(reference, scores, truth), theirs)
        ratio = median(theirs) / median(ours)
        errors = [f"{abs(one - other):.1e}" for one, other in zip(found, exact, strict=True)]
        rows.append((name, f"{median(ours):.3f}", f"{median(theirs):.2f}", f"{ratio:.1f}", f"{exact[0]:.3f}", *errors))
    print(f"## One volume of {edge}^3, {repeats} repeats\n")
    table(("scores", "nnood s", "scikit-learn s", "ratio", "AP", "AP's error", "AUROC's error"), rows)


def volumes(edge: int, number: int) -> Iterator[tuple[str, ScoredCase]]:
    """Every second one is normal."""
    geometry = Geometry.from_spacing((edge,) * 3, (1.0, 1.0, 1.0))
    for index in range(number):
        rng = np.random.default_rng(index)
        truth = balls(rng, edge) if index % 2 else np.zeros((edge,) * 3, dtype=bool)
        scores = continuous(rng, truth)
        yield f"{index:04d}", ScoredCase(scores, truth, geometry, sample_score(scores))


def highest_memory() -> float:
    """Of this process so far, in MB (of 10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def streaming(edge: int, number: int, *, objects: bool) -> None:
    """A test set through the evaluation."""
    before = highest_memory()
    truth = Truth({f"{index:04d}": Path() for index in range(1, number, 2)}, None, {})
    evaluator = Evaluator(truth)
    seconds = {"voxels": 0.0, "objects": 0.0, "result": 0.0}
    for step, add in (("voxels", evaluator.add), *([("objects", evaluator.add_objects)] if objects else [])):
        for name, case in volumes(edge, number):
            start = time.perf_counter()
            add(name, case)
            seconds[step] += time.perf_counter() - start
    start = time.perf_counter()
    result = evaluator.result(ROUNDS)
    seconds["result"] = time.perf_counter() - start
    print(f"## {number} volumes of {edge}^3, {ROUNDS} resamples\n")
    table(
        ("voxels, s per volume", "objects, s per volume", "figures and intervals, s", "start, MB", "highest, MB"),
        [
            (
                *(f"{seconds[step] / number:.3f}" for step in ("voxels", "objects")),
                f"{seconds['result']:.1f}",
                f"{before:.0f}",
                f"{highest_memory():.0f}",
            )
        ],
    )
    known = [f"{key} {figure.value:.3f}" for key, figure in result.figures.items() if figure.value is not None]
    print(f"{', '.join(known)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=256, help="voxels along each edge of a volume")
    parser.add_argument("--repeats", type=int, default=3, help="of the comparison with scikit-learn; 0 skips it")
    parser.add_argument("--volumes", type=int, default=10, help="in the test set")
    parser.add_argument("--no_objects", action="store_true", help="leave out the slow second pass, for objects")
    arguments = parser.parse_args()
    # Before scikit-learn, whose memory would be counted otherwise.
    if arguments.volumes:
        streaming(arguments.edge, arguments.volumes, objects=not arguments.no_objects)
    if arguments.repeats:
        against_scikit_learn(arguments.edge, arguments.repeats)


if __name__ == "__main__":
    main()
