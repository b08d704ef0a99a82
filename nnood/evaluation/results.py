"""What an evaluation says: figures with their chance level and interval, pooled, per group and per case."""

from dataclasses import asdict, dataclass, field
from typing import Any

# Every figure there is, by its key in the results, and how tables name it.
FIGURES = {
    "voxel_ap": "voxel AP",
    "voxel_auroc": "voxel AUROC",
    "voxel_auroc30": "voxel AUROC up to 30 % false positives",
    "voxel_best_dice": "best Dice",
    "voxel_dice": "Dice at the threshold",
    "aupro": "AUPRO up to 30 % false positives",
    "object_recall": "objects found at 1 false positive per case",
    "froc": "objects found, mean of 1/8 to 8 false positives per case",
    "sample_ap": "sample AP",
    "sample_auroc": "sample AUROC",
    "sample_sensitivity": "sensitivity at 95 % specificity",
    "slice_ap": "slice AP",
    "slice_auroc": "slice AUROC",
}
NORMAL = "normal"


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        value: The figure; None where it is undefined.
        chance: What chance gives; None where there is no such level.
        low: Lower end of the 95 % bootstrap interval over cases; None where it could not be had.
        high: Upper end.
    """

    value: float | None
    chance: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Group:
    """The figures of some anomalous cases, together with all normal ones.

    The object figures of a size are of the objects of that size, whatever the size of all anomalies of their case.

    Attributes:
        by: `kind` or `size`.
        name: Name of the kind, or the range of sizes in words.
        cases: Number of anomalous cases.
        close_to: Tasks that the kind is close to, of those that the networks trained on; of all, if these are unknown.
        figures: Key of `FIGURES` to figure.
    """

    by: str
    name: str
    cases: int
    close_to: tuple[str, ...]
    figures: dict[str, Figure]


@dataclass(frozen=True)
class CaseResult:
    """The figures of one case.

    Attributes:
        name: Name of the case.
        kind: Kind of anomaly, `normal`, or empty where only the masks say that it is anomalous.
        anomalous: Whether its mask has an anomalous voxel, or its sample label is 1.
        sample_score: The predicted score of the case.
        size: Volume of the anomaly in mm^3 (in 2D, area in mm^2); None with sample labels only.
        figures: Key of `FIGURES` to value; None where undefined, as voxel figures of a normal case are.
    """

    name: str
    kind: str
    anomalous: bool
    sample_score: float
    size: float | None
    figures: dict[str, float | None]


@dataclass(frozen=True)
class Evaluation:
    """All figures of a folder of predictions. AP is average precision; its chance level is the prevalence.

    Attributes:
        normal_cases: Number of normal cases.
        anomalous_cases: Number of anomalous cases.
        figures: Key of `FIGURES` to figure, all cases together. The keys are always the same.
        groups: Per kind and per size of anomaly.
        cases: One entry per case, sorted by name.
        curves: Points (x, y): `precision_recall` (recall, precision), `roc` (false and true positive rate), both of the
            voxels, `sample_roc`, and `froc` (false positives per case, share of objects found); empty where undefined.
        dimensions: 2 or 3, which says whether sizes are areas or volumes; None with sample labels only.
        threshold: The score from which `voxel_dice` calls a voxel anomalous; None if none was given.
        best_threshold: The score at which `voxel_best_dice` is reached.
        notes: Sentences on what is undefined or left out, and why.
    """

    normal_cases: int
    anomalous_cases: int
    figures: dict[str, Figure]
    groups: tuple[Group, ...] = ()
    cases: tuple[CaseResult, ...] = ()
    curves: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    dimensions: int | None = None
    threshold: float | None = None
    best_threshold: float | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON, where undefined figures are null."""
        return asdict(self)
