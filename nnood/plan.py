"""The typed block `plans["nnood"]`: what nnood adds to nnU-Net's plans."""

from dataclasses import asdict, dataclass
from typing import Any

from nnood.errors import UserError

SCHEMA_VERSION = 2
PLANS_NAME = "nnoodPlans"
PLANS_FILE = f"{PLANS_NAME}.json"
CASE_LIST_FILE = "case_list.json"
# In the plans, for the next call of the planner; what follows from it is in each configuration.
BUDGET_KEY = "planned_for"


@dataclass(frozen=True)
class ConfigurationPlan:
    """What was measured on the preprocessed cases of one configuration.

    Attributes:
        foreground_extent: Median extent of the foreground's box in voxels, axes as stored (z, y, x).
        label_sigma: Per channel, half the median absolute difference of two foreground voxels of a case, in normalised
            intensity: the scale of the flipped-Gaussian label.
        label_saturation: Per channel, the 40th percentile of those differences: the change at which the logistic label
            is full.
    """

    foreground_extent: tuple[int, ...]
    label_sigma: tuple[float, ...]
    label_saturation: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.foreground_extent or min(self.foreground_extent) < 1:
            raise ValueError(f"Expected extents of at least one voxel, but got {self.foreground_extent}.")
        if not self.label_sigma or min(self.label_sigma) <= 0:
            raise ValueError(f"Expected label scales > 0, but got {self.label_sigma}.")
        if len(self.label_saturation) != len(self.label_sigma) or min(self.label_saturation) <= 0:
            raise ValueError(f"Expected as many label saturations > 0, but got {self.label_saturation}.")


@dataclass(frozen=True)
class NnoodPlan:
    """Everything that nnood found out about a data set.

    Attributes:
        default_configuration: The one to use when the user names none.
        foreground_method: `whole`, `nonzero`, `otsu` or `masks`.
        foreground_reason: Why, for the user to read.
        mirror_axes: Axes (0 = first of z, y, x in the image file) along which mirrored anatomy is still normal.
        rotation_degrees: Largest rotation that leaves the anatomy normal.
        anomaly_size: Smallest and largest extent of planted anomalies, as fractions of the foreground's box.
        configurations: Measured per preprocessed configuration.
        lesions: SHA-256 of the file of lesion shapes, or empty if the user gave no masks.
        schema_version: Version of this block.
    """

    default_configuration: str
    foreground_method: str
    foreground_reason: str
    mirror_axes: tuple[int, ...]
    rotation_degrees: float
    anomaly_size: tuple[float, float]
    configurations: dict[str, ConfigurationPlan]
    lesions: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not 0 < self.anomaly_size[0] <= self.anomaly_size[1] <= 1:
            raise ValueError(f"Expected 0 < smallest <= largest <= 1, but got anomaly_size {self.anomaly_size}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return asdict(self)

    @classmethod
    def from_dict(cls, block: dict[str, Any]) -> "NnoodPlan":
        """Read the block back.

        Raises:
            UserError: If it was written by another version of nnood or lacks something.
        """
        if not isinstance(block, dict) or block.get("schema_version") != SCHEMA_VERSION:
            found = block.get("schema_version") if isinstance(block, dict) else None
            raise UserError(
                f"The plans' block 'nnood' has the schema version {found} but this nnood needs {SCHEMA_VERSION}; "
                "run nnood_plan_and_preprocess --overwrite."
            )
        try:
            configurations = {
                name: ConfigurationPlan(
                    tuple(values["foreground_extent"]), tuple(values["label_sigma"]), tuple(values["label_saturation"])
                )
                for name, values in block["configurations"].items()
            }
            return cls(
                default_configuration=block["default_configuration"],
                foreground_method=block["foreground_method"],
                foreground_reason=block["foreground_reason"],
                mirror_axes=tuple(block["mirror_axes"]),
                rotation_degrees=float(block["rotation_degrees"]),
                anomaly_size=(float(block["anomaly_size"][0]), float(block["anomaly_size"][1])),
                configurations=configurations,
                lesions=str(block["lesions"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"The plans' block 'nnood' is not valid ({error}); plan the data set again.") from error
