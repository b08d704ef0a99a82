"""The inference plan: which members predict, and how their score maps become one calibrated answer."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from nnood.errors import UserError
from nnood.inference.calibration import IDENTITY, Calibration, Threshold
from nnood.inference.ensembling import COMBINATIONS, RANK_LEVELS
from nnood.inference.members import Member, plans_digest, settings_of
from nnood.inference.postprocessing import Step
from nnood.json_fields import number, numbers, optional, parts, texts, typed
from nnood.reconstruction.patch_scores import PATCH_COMBINATIONS, PATCH_SCORES
from nnood.reconstruction.settings import VOXEL_SCORES
from nnood.safety import read_json, sha256
from nnood.scores import DEFAULT_SAMPLE_SCORE, SAMPLE_SCORES

PLAN_FILE = "inference_plan.json"
SCHEMA_VERSION = 2
PLAIN_NAME = re.compile(r"^(?!\.)[^/\\]+$")  # no way out of the folder of results


@dataclass(frozen=True)
class PlannedMember:
    """A member by name.

    Attributes:
        folder: Name of the folder under `results/DATASET`.
        fold: What follows `fold_` in the name of its own folder.
        checkpoint: File name.
        sha256: Of the checkpoint.
        quantiles: Its scores at `RANK_LEVELS`, for the mean of ranks; empty otherwise.
        voxel_score: Which of several that its network has; the recipe's if empty.
    """

    folder: str
    fold: str
    checkpoint: str
    sha256: str
    quantiles: tuple[float, ...] = ()
    voxel_score: str = ""

    def __post_init__(self) -> None:
        for key in ("folder", "fold", "checkpoint"):
            if not PLAIN_NAME.match(getattr(self, key)):
                raise ValueError(f"Expected a plain name for {key} of a member, but got {getattr(self, key)!r}.")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"Expected a SHA-256 for sha256 of a member, but got {self.sha256!r}.")
        inside = all(0 <= one <= 1 for one in self.quantiles) and all(a <= b for a, b in pairwise(self.quantiles))
        if not inside or len(self.quantiles) not in (0, len(RANK_LEVELS)):
            raise ValueError(f"Expected none or {len(RANK_LEVELS)} rising quantiles in [0, 1] of a member.")
        if self.voxel_score and self.voxel_score not in VOXEL_SCORES:
            raise ValueError(
                f"Expected one of {', '.join(VOXEL_SCORES)} for voxel_score of a member, but got {self.voxel_score!r}."
            )

    @property
    def name(self) -> str:
        """For the user: folder, fold and, if its network has several, voxel score."""
        return f"{self.folder}/fold_{self.fold}{self._score}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return {**asdict(self), "quantiles": list(self.quantiles)}

    @property
    def _score(self) -> str:
        return f" ({self.voxel_score})" if self.voxel_score else ""

    def describe(self) -> str:
        """For the user: its checkpoint and, if its network has several, voxel score."""
        return f"{self.folder}/fold_{self.fold}/{self.checkpoint}{self._score}"


@dataclass(frozen=True)
class PatchScoring:
    """A sample score that autoencoders read from the patches of an image, not from its score map.

    Attributes:
        members: Whose scores are averaged.
        score: Of a patch, one of `PATCH_SCORES`.
        combination: From patches to the image, one of `PATCH_COMBINATIONS`.
    """

    members: tuple[PlannedMember, ...]
    score: str
    combination: str

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("Expected at least one of the members of sample_patches, but got none.")
        for key, value, known in (
            ("score", self.score, PATCH_SCORES),
            ("combination", self.combination, tuple(PATCH_COMBINATIONS)),
        ):
            if value not in known:
                raise ValueError(f"Expected one of {', '.join(known)} for {key} of sample_patches, but got {value!r}.")

    def describe(self) -> str:
        """For the user."""
        return f"{self.score} of patches, {self.combination}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        members = [member.to_dict() for member in self.members]
        return {"members": members, "score": self.score, "combination": self.combination}


@dataclass(frozen=True)
class InferencePlan:
    """Everything that decides a prediction.

    Attributes:
        dataset: Name of the data set.
        members: Who predicts.
        combination: One of `COMBINATIONS`.
        steps: Of post-processing, in their order.
        sample_score: One of `SAMPLE_SCORES`.
        within_foreground: Whether the sample score regards the foreground only.
        sample_patches: In the place of both, a sample score of patches; None: it is that of the score map.
        calibration: Of the scores after the steps.
        thresholds: On calibrated scores.
        plans: Per folder of members, the digest of its plans.
        candidates: All that was compared: `stage`, `name`, `voxel_ap` or `sample_ap`, `gain`, `error`, `chosen`.
        notes: Sentences for the user.
        schema_version: Version of this content.
    """

    dataset: str
    members: tuple[PlannedMember, ...]
    combination: str
    steps: tuple[Step, ...]
    sample_score: str
    within_foreground: bool
    calibration: Calibration
    thresholds: tuple[Threshold, ...]
    plans: dict[str, str]
    candidates: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sample_patches: PatchScoring | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not PLAIN_NAME.match(self.dataset):
            raise ValueError(f"Expected the name of a data set for dataset, but got {self.dataset!r}.")
        if not self.members:
            raise ValueError("Expected at least one entry in members, but got none.")
        names = [member.name for member in self.members]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Expected each of the members once, but got {twice[0]} twice.")
        for key, value, known in (
            ("combination", self.combination, COMBINATIONS),
            ("sample_score", self.sample_score, tuple(SAMPLE_SCORES)),
        ):
            if value not in known:
                raise ValueError(f"Expected one of {', '.join(known)} for {key}, but got {value!r}.")
        if self.combination == "rank_mean" and not all(member.quantiles for member in self.members):
            raise ValueError("Expected quantiles of all members for the combination rank_mean.")
        missing = sorted({member.folder for member in (*self.members, *self.sample_members)} - set(self.plans))
        if missing:
            raise ValueError(f"Expected the digest of the plans of {missing[0]} in plans, but got none.")

    @property
    def sample_members(self) -> tuple[PlannedMember, ...]:
        """Those who give the sample score, where it is not read from the score map."""
        return () if self.sample_patches is None else self.sample_patches.members

    @property
    def describe_sample_score(self) -> str:
        """For the user."""
        if self.sample_patches is not None:
            return self.sample_patches.describe()
        return f"{self.sample_score} within the foreground" if self.within_foreground else self.sample_score

    @property
    def needs_foreground(self) -> bool:
        """Whether the foreground of a new image must be found."""
        return self.within_foreground or any(step.needs_foreground for step in self.steps)

    def threshold(self, level: str, rate: float) -> Threshold | None:
        """The threshold of a level (`voxel`, `sample`) at a rate of false positives, or None if there is none."""
        return next((one for one in self.thresholds if one.level == level and one.rate == rate), None)

    def decisive(self) -> dict[str, Any]:
        """The part that a prediction depends on, JSON-ready."""
        content = self.to_dict()
        return {key: value for key, value in content.items() if key not in ("candidates", "notes")}

    def describe(self) -> str:
        """For the user: members, combination, steps, sample score."""
        members = "\n         ".join(member.describe() for member in self.members)
        steps = ", ".join(step.describe() for step in self.steps) or "none"
        calibrated = "no" if self.calibration == IDENTITY else "yes"
        return (
            f"Members: {members}\nCombination: {self.combination}\nPost-processing: {steps}\n"
            f"Sample score: {self.describe_sample_score}\nCalibrated: {calibrated}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return {
            "schema_version": self.schema_version,
            "dataset": self.dataset,
            "members": [member.to_dict() for member in self.members],
            "combination": self.combination,
            "steps": [step.to_dict() for step in self.steps],
            "sample_score": self.sample_score,
            "within_foreground": self.within_foreground,
            "sample_patches": None if self.sample_patches is None else self.sample_patches.to_dict(),
            "calibration": self.calibration.to_dict(),
            "thresholds": [threshold.to_dict() for threshold in self.thresholds],
            "plans": dict(self.plans),
            "candidates": [dict(candidate) for candidate in self.candidates],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, content: Any) -> "InferencePlan":
        """Read a plan back.

        Raises:
            UserError: If it was written by another version of nnood, lacks something, or says what cannot be.
        """
        found = content.get("schema_version") if isinstance(content, dict) else None
        if found != SCHEMA_VERSION:
            raise UserError(
                f"The inference plan has the schema version {found} but this nnood needs {SCHEMA_VERSION}; run "
                "nnood_find_best_configuration again."
            )
        try:
            _check_keys(content)
            calibration = typed(content, "calibration", dict)
            return cls(
                dataset=typed(content, "dataset", str),
                members=parts(content, "members", dict, _member),
                combination=typed(content, "combination", str),
                steps=parts(content, "steps", dict, Step.from_dict),
                sample_score=typed(content, "sample_score", str),
                within_foreground=typed(content, "within_foreground", bool),
                sample_patches=optional(_patches)(content, "sample_patches"),
                calibration=Calibration(numbers(calibration, "scores"), numbers(calibration, "values")),
                thresholds=parts(content, "thresholds", dict, _threshold),
                plans=texts(content, "plans"),
                candidates=list(parts(content, "candidates", dict, dict)),
                notes=list(parts(content, "notes", str, str)),
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
            raise UserError(
                f"The inference plan is not valid ({reason}); correct it, or run nnood_find_best_configuration again."
            ) from error


def load_plan(file: Path) -> InferencePlan:
    """Read an inference plan.

    Raises:
        UserError: Names the file.
    """
    if not file.exists():
        raise UserError(f"{file} does not exist; correct the name of the inference plan.")
    content = read_json(file)
    try:
        return InferencePlan.from_dict(content)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def default_plan(members: Sequence[Member]) -> InferencePlan:
    """The plan of those who have none: the plain mean of the members, neither post-processed nor calibrated.

    The sample score is that of the members' recipe; nnood's default where their recipes disagree.
    """
    scores = {settings_of(member).recipe.sample_score for member in members}
    planned = tuple(
        PlannedMember(member.folder.name, member.fold, member.file.name, sha256(member.file)) for member in members
    )
    return InferencePlan(
        dataset=members[0].folder.parent.name,
        members=planned,
        combination="mean",
        steps=(),
        sample_score=scores.pop() if len(scores) == 1 else DEFAULT_SAMPLE_SCORE,
        within_foreground=False,
        calibration=IDENTITY,
        thresholds=(),
        plans={member.folder.name: plans_digest(member.plans, member.configuration) for member in members},
    )


def _check_keys(content: dict[str, Any]) -> None:
    """Refuse misspelled keys, which would otherwise be overlooked."""
    unknown = sorted(set(content) - set(InferencePlan.__dataclass_fields__))
    if unknown:
        raise ValueError(f"{unknown[0]} is no key of it")


def _member(content: dict[str, Any]) -> PlannedMember:
    return PlannedMember(
        folder=typed(content, "folder", str),
        fold=typed(content, "fold", str),
        checkpoint=typed(content, "checkpoint", str),
        sha256=typed(content, "sha256", str),
        quantiles=numbers(content, "quantiles"),
        voxel_score=typed(content, "voxel_score", str),
    )


def _patches(content: dict[str, Any], key: str) -> PatchScoring:
    found = typed(content, key, dict)
    return PatchScoring(
        members=parts(found, "members", dict, _member),
        score=typed(found, "score", str),
        combination=typed(found, "combination", str),
    )


def _threshold(content: dict[str, Any]) -> Threshold:
    return Threshold(
        level=typed(content, "level", str),
        rate=number(content, "rate"),
        value=number(content, "value"),
        low=number(content, "low"),
        high=number(content, "high"),
        reliable=typed(content, "reliable", bool),
    )
