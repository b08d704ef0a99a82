"""What an archive of a model says of itself: data set, versions, and the size and hash of each of its files."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from platform import python_version
from typing import Any

from nnood import __version__
from nnood.datasets import DATASET_NAME
from nnood.errors import UserError
from nnood.inference.inference_plan import PLAN_FILE
from nnood.json_fields import integer, texts, typed

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
FINGERPRINT_FILE = "dataset_fingerprint.json"
RECIPES = "recipes"
PACKAGES = ("torch", "nnunetv2", "numpy")
MOST_FILES = 5000
LONGEST_NAME = 400

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,150}"
_MEMBERS = rf"{_NAME}__{_NAME}__{_NAME}"
_LAYOUT = (
    re.escape(PLAN_FILE),
    re.escape(FINGERPRINT_FILE),
    rf"{RECIPES}/{_NAME}\.json",
    rf"{_MEMBERS}/(plans|dataset)\.json",
    rf"{_MEMBERS}/fold_{_NAME}/(settings\.json|{_NAME}\.pth|{_NAME}\.sha256\.json)",
)
_ALLOWED = re.compile("|".join(f"(?:{pattern})" for pattern in _LAYOUT))


@dataclass(frozen=True)
class Entry:
    """A file of the archive.

    Attributes:
        size: In bytes.
        sha256: Of its content.
    """

    size: int
    sha256: str

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"a size is {self.size}")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"a sha256 is {self.sha256!r}")


@dataclass(frozen=True)
class Manifest:
    """All that is known of an archive's files before they are read.

    Attributes:
        dataset: Name of the data set that the model was trained on.
        versions: Of nnood, Python and the packages that matter most, where the archive was written.
        files: By name, relative to the folder `results/DATASET`.
    """

    dataset: str
    versions: dict[str, str]
    files: dict[str, Entry]

    def __post_init__(self) -> None:
        if not DATASET_NAME.fullmatch(self.dataset):
            raise ValueError(f"dataset is {self.dataset!r}")
        if len(self.files) > MOST_FILES:
            raise ValueError(f"it has {len(self.files)} files, more than {MOST_FILES}")
        wrong = [name for name in self.files if not is_allowed(name)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no file of a model")
        twice = find_twice(list(self.files))
        if twice:
            raise ValueError(f"{twice!r} is there twice")
        if PLAN_FILE not in self.files:
            raise ValueError(f"{PLAN_FILE} is missing")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.dataset,
            "versions": dict(self.versions),
            "files": {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in sorted(self.files.items())},
        }

    @classmethod
    def from_dict(cls, content: Any) -> "Manifest":
        """Read a manifest back.

        Raises:
            UserError: If another version of nnood wrote it, or it is not valid; does not name the archive.
        """
        found = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(found, int) and found > SCHEMA_VERSION:
            raise UserError(
                f"it has the schema version {found}, but this nnood {__version__} knows {SCHEMA_VERSION} at most; "
                "update nnood."
            )
        if found != SCHEMA_VERSION:
            raise UserError(f"{MANIFEST} has the schema version {found}, expected {SCHEMA_VERSION}; ask for it anew.")
        try:
            entries = typed(content, "files", dict)
            return cls(
                dataset=typed(content, "dataset", str),
                versions=texts(content, "versions"),
                files={
                    name: Entry(integer(entry, "size"), typed(entry, "sha256", str)) for name, entry in entries.items()
                },
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{MANIFEST} is not valid ({reason}); ask for the archive anew.") from error


def is_allowed(name: str) -> bool:
    """Whether a name is one of a model's known layout: relative, plain, and of a known kind."""
    return len(name) <= LONGEST_NAME and ".." not in name and _ALLOWED.fullmatch(name) is not None


def find_twice(names: Sequence[str]) -> str | None:
    """A name that is there twice, also for file systems that don't tell upper from lower case."""
    counts = Counter(name.casefold() for name in names)
    return next((name for name in names if counts[name.casefold()] > 1), None)


def own_versions() -> dict[str, str]:
    """Of nnood, Python and the packages that matter most, as they are here."""
    return {"nnood": __version__, "python": python_version(), **{name: version(name) for name in PACKAGES}}
