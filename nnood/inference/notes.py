"""What is noted beside predictions: what was predicted with what, so that nothing of different origin is mixed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnood.errors import UserError
from nnood.evaluation.folders import NOTE, read_note
from nnood.inference.inference_plan import InferencePlan
from nnood.inference.members import Member
from nnood.safety import digest_of, plain, read_json, write_json
from nnood.training.settings import SETTINGS_FILE, TrainingSettings


def describe_members(members: Sequence[Member], archive: Path | None = None) -> dict[str, Any]:
    """What an evaluation or a report of predictions wants to know of the networks: `dataset`, `members`, `tasks`.

    Args:
        members: Who predicts.
        archive: That they were unpacked from for now; then their files are named as it has them.
    """
    records = [member.file.parent / SETTINGS_FILE for member in members]
    folds = [TrainingSettings.from_dict(read_json(file)).fold for file in records if file.is_file()]
    known = len(folds) == len(records)
    return {
        "dataset": members[0].folder.parent.name,
        "members": [
            member.file if archive is None else archive.absolute() / member.file.relative_to(member.folder.parent)
            for member in members
        ],
        "tasks": sorted({task for fold in folds for task in fold.train_tasks}) if known else None,
    }


def describe_plan(plan: InferencePlan, file: Path | None, archive: Path | None = None) -> dict[str, Any] | None:
    """What was done with the members' score maps; None where no plan was followed.

    Args:
        plan: That was followed.
        file: Where it was read from.
        archive: That this was unpacked from for now.
    """
    if file is None:
        return None
    decisive = plan.decisive()
    told = ("combination", "steps", "sample_score", "within_foreground", "thresholds")
    return {
        "file": file.absolute() if archive is None else archive.absolute() / file.name,
        "digest": digest_of(decisive),
        "checkpoints": [member.sha256 for member in plan.members],
        **{key: decisive[key] for key in told},
    }


def write_note(output: Path, note: dict[str, Any]) -> None:
    """Note what is predicted with what, in a folder that holds nothing else.

    Args:
        output: The folder of predictions.
        note: As `nnood.evaluation.folders.read_note` gives it, with `plan` (or None) and, of combined folders,
            `ensemble`.

    Raises:
        UserError: If there are predictions of other networks that this run does not replace.
    """
    note = plain(note)
    before = read_note(output)
    if before == note:
        return
    others = sorted(set(before.get("cases", ())) - set(note["cases"]))
    if others and _origin(before) != _origin(note):
        raise UserError(
            f"{output} holds {others[0]} and more, predicted by other networks; choose another folder (-o)."
        )
    write_json(output / NOTE, note)


def _origin(note: dict[str, Any]) -> tuple[Any, ...]:
    """What decides the score maps besides the images."""
    return note["members"], (note.get("plan") or {}).get("digest"), note.get("ensemble")
