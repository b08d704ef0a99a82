"""An unpacked model: whether it can be used, and whether using it runs nothing but nnood's own code."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from nnood.errors import UserError
from nnood.inference.inference_plan import PLAN_FILE, load_plan
from nnood.inference.members import settings_of
from nnood.inference.predict import Planned, follow_plan
from nnood.paths import Roots
from nnood.sharing.exporting import NEEDED, PATCHES
from nnood.sharing.named_in_plans import check_plans
from nnood.training.checkpoints import agrees
from nnood.training.foreign_checkpoints import load_foreign

# What JSON of unexpected structure leads to, before or after someone's own check.
MADE_UP = (UserError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)


def load_model(folder: Path, source: Path) -> Planned:
    """Find plan and members of an unpacked model, and check all of its files.

    Args:
        folder: Of the data set, as in an archive.
        source: What to name where something is wrong.

    Raises:
        UserError: If a checkpoint holds anything but weights, plans name something that is no network, or the parts
            don't fit together.
    """
    try:
        for checkpoint in sorted(folder.glob("*/*/*.pth")):
            check_checkpoint(checkpoint)
        for plans in sorted(folder.glob("*/plans.json")):
            check_plans(plans)
        if load_plan(folder / PLAN_FILE).dataset != folder.name:
            raise UserError(f"{folder / PLAN_FILE} is of another data set.")
        root = folder.parent
        planned = follow_plan(folder / PLAN_FILE, Roots(root, root, root))
        for member in planned.members:
            settings_of(member)
        _ = planned.channels, planned.foreground_method
    except MADE_UP as error:
        # What to do about it is meant for those who trained the model.
        reason = str(error).replace(f"{folder}/", "").split("; ")[0].rstrip(".")
        raise UserError(f"{source} is refused ({reason}); ask for the model anew.") from error
    return planned


def check_checkpoint(path: Path) -> None:
    """Check that a checkpoint holds weights and mirror axes, and nothing that is unpacked or run by loading it.

    Raises:
        UserError: Names the file.
    """
    if not agrees(path):
        raise UserError(f"{path} does not agree with the hash beside it.")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is no checkpoint.")
    with zipfile.ZipFile(path) as archive:
        packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise UserError(f"{path} is compressed, which checkpoints never are.")
    content = load_foreign(path)
    if not (isinstance(content, dict) and set(NEEDED) <= set(content) <= {*NEEDED, PATCHES}):
        raise UserError(f"{path} holds something else than {', '.join(NEEDED)}.")
    tensors = (content[NEEDED[0]], content.get(PATCHES, {}))
    if not (all(map(_is_tensors, tensors)) and _is_axes(content[NEEDED[1]])):
        raise UserError(f"{path} holds something else than weights.")


def _is_tensors(value: Any) -> bool:
    """Whether a value is a table of tensors by name."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(one, torch.Tensor) for name, one in value.items()
    )


def _is_axes(value: Any) -> bool:
    """Whether a value is a list of axes."""
    return isinstance(value, list | tuple) and all(type(axis) is int and axis in (0, 1, 2) for axis in value)
