"""Write all that a prediction needs into one archive, and nothing else of the training."""

import dataclasses
import hashlib
import io
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import torch

from nnood.errors import UserError
from nnood.inference.inference_plan import PLAN_FILE, InferencePlan, PlannedMember
from nnood.inference.members import Member, settings_of
from nnood.inference.predict import Planned
from nnood.paths import Roots
from nnood.safety import atomic_path, plain, read_json, remove_leftovers
from nnood.sharing.manifest import FINGERPRINT_FILE, MANIFEST, RECIPES, Entry, Manifest, is_allowed, own_versions
from nnood.training.checkpoints import hash_file, load_checkpoint
from nnood.training.settings import SETTINGS_FILE, TrainingSettings

# Of a checkpoint; the rest is the optimiser's, twice as large as the weights, and the course of the training.
NEEDED = ("network_weights", "mirror_axes")
PATCHES = "patches"  # codes and errors of training patches, which sample scores of patches are fitted on
ENDING = ".zip"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the same content gives the same bytes, whenever it is written


def export_model(planned: Planned, roots: Roots, file: Path) -> Manifest:
    """Write the members and the plan of a prediction into an archive.

    What is in it: of each checkpoint weights and mirror axes (and, where the plan scores samples by patches, their
    codes); the plans and dataset.json beside the members; recipe, tasks and seed of each, without the names of its
    cases; the inference plan, without the notes on how it was chosen; the data set's fingerprint.

    Args:
        planned: Who predicts, and how.
        roots: The three root folders.
        file: Of the archive; its name ends with `.zip`.

    Returns:
        What was written.

    Raises:
        UserError: If the file's name ends otherwise, or a checkpoint is damaged.
    """
    if file.suffix != ENDING:
        raise UserError(f"{file} is no name for an archive; choose one that ends with {ENDING}.")
    if file.parent.is_dir():
        remove_leftovers(file.parent)
    with atomic_path(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        return _Writer(archive).write(planned, roots)


def shared_settings(settings: TrainingSettings) -> TrainingSettings:
    """What a member was trained with, without the names of the cases."""
    return dataclasses.replace(settings, fold=dataclasses.replace(settings.fold, train_cases=(), val_cases=()))


class _Writer:
    """Writes an archive file by file and remembers what it wrote."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._files: dict[str, Entry] = {}

    def write(self, planned: Planned, roots: Roots) -> Manifest:
        """Everything; the manifest last."""
        plan, members = planned.plan, planned.members
        needs_patches = {member.file for member in members[len(plan.members) :]}
        digests: dict[Path, str] = {}
        for member in sorted(members, key=lambda one: one.file):
            if member.file not in digests:
                digests[member.file] = self._add_member(member, with_patches=member.file in needs_patches)
        for member in members:
            self._add_once(f"{member.folder.name}/plans.json", member.plans)
            self._add_once(f"{member.folder.name}/dataset.json", member.dataset_json)
            recipe = settings_of(member).recipe
            self._add_once(f"{RECIPES}/{recipe.name}.json", recipe.to_dict())
        self._add_once(PLAN_FILE, _with_digests(plan, [digests[member.file] for member in members]).to_dict())
        for root in (roots.preprocessed, roots.results):  # of installed models, it is among the results
            fingerprint = root / plan.dataset / FINGERPRINT_FILE
            if fingerprint.is_file():
                self._add_once(FINGERPRINT_FILE, read_json(fingerprint))
        manifest = Manifest(plan.dataset, own_versions(), dict(self._files))
        self._add(MANIFEST, _json(manifest.to_dict()))
        return manifest

    def _add_member(self, member: Member, *, with_patches: bool) -> str:
        """Checkpoint, its hash and settings; returns the hash of the checkpoint as it is in the archive."""
        name = member.file.relative_to(member.folder.parent).as_posix()
        content = load_checkpoint(member.file, torch.device("cpu"))
        keys = (*NEEDED, PATCHES) if with_patches else NEEDED
        serialised = io.BytesIO()
        torch.save({key: content[key] for key in keys if key in content}, serialised)
        data = serialised.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        self._add(name, data)
        self._add_once(hash_file(Path(name)).as_posix(), [digest])
        settings = shared_settings(settings_of(member))
        self._add_once(f"{Path(name).parent.as_posix()}/{SETTINGS_FILE}", settings.to_dict())
        return digest

    def _add_once(self, name: str, content: Any) -> None:
        """A JSON file, unless it is there already."""
        if name not in self._files:
            self._add(name, _json(content))

    def _add(self, name: str, data: bytes) -> None:
        if name != MANIFEST and not is_allowed(name):
            raise UserError(f"{name} can't be in an archive; name recipes with letters, digits and . _ - + @ only.")
        entry = zipfile.ZipInfo(name, EARLIEST)
        entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
        # Weights do not become smaller.
        entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
        self._archive.writestr(entry, data)
        self._files[name] = Entry(len(data), hashlib.sha256(data).hexdigest())


def _with_digests(plan: InferencePlan, digests: list[str]) -> InferencePlan:
    """The plan of the checkpoints in the archive, without the notes, whose sentences are on the selection's cases.

    Args:
        plan: Of the checkpoints as they were trained.
        digests: Of its members' checkpoints in the archive, then of those of its sample score.
    """

    def renewed(members: tuple[PlannedMember, ...], own: list[str]) -> tuple[PlannedMember, ...]:
        return tuple(dataclasses.replace(one, sha256=digest) for one, digest in zip(members, own, strict=True))

    count, patches = len(plan.members), plan.sample_patches
    if patches is not None:
        patches = dataclasses.replace(patches, members=renewed(patches.members, digests[count:]))
    members = renewed(plan.members, digests[:count])
    return dataclasses.replace(plan, members=members, sample_patches=patches, notes=[])


def _json(content: Any) -> bytes:
    return (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode()
