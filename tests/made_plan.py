"""An inference plan of the members that the tests of prediction train, with a bit of everything."""

from pathlib import Path
from typing import Any

from nnood.inference.calibration import Calibration, Threshold
from nnood.inference.inference_plan import PLAN_FILE, default_plan
from nnood.inference.members import find_members
from nnood.inference.postprocessing import Step
from nnood.paths import Roots
from nnood.safety import write_json

NAME = "Dataset101_Members"  # of `trained_once`


def make_plan(roots: Roots, **changes: Any) -> Path:
    """Write the plan of a data set: all three members, all kinds of steps, calibrated."""
    members = [
        member
        for configuration in ("3d_fullres", "2d")
        for member in find_members(roots, dataset=NAME, recipe="nnood", configuration=configuration)
    ]
    steps = (
        Step("restrict_to_foreground", {"dilation_mm": 1.0}),
        Step("smooth", {"sigma_mm": 0.7}),
        Step("remove_small", {"threshold": 0.1, "volume_mm3": 5.0}),
    )
    content = default_plan(members).to_dict() | {
        "combination": "mean",
        "steps": [step.to_dict() for step in steps],
        "sample_score": "top_1_percent",
        "within_foreground": True,
        "calibration": Calibration((0.0, 1e-3, 0.3, 1.0), (0.0, 0.2, 0.6, 1.0)).to_dict(),
        "thresholds": [Threshold("voxel", 0.01, 0.4, 0.3, 0.5, True).to_dict()],
    }
    file = roots.results / NAME / PLAN_FILE
    write_json(file, content | changes)
    return file
