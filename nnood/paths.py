"""The three root folders, and the only place that knows where they are."""

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLES = {"raw": "nnood_raw", "preprocessed": "nnood_preprocessed", "results": "nnood_results"}
NNUNET_VARIABLES = {"raw": "nnUNet_raw", "preprocessed": "nnUNet_preprocessed", "results": "nnUNet_results"}


@dataclass(frozen=True)
class Roots:
    """Where data sets live.

    Attributes:
        raw: Raw data sets, one folder each.
        preprocessed: Fingerprints, plans and preprocessed cases.
        results: Trained networks and predictions.
    """

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def under(cls, folder: Path) -> "Roots":
        """All three in one folder."""
        return cls(**{key: folder / key for key in VARIABLES})

    def describe(self) -> str:
        """One line for the user: which folders are used."""
        return f"raw: {self.raw}  preprocessed: {self.preprocessed}  results: {self.results}"


def get_roots() -> Roots:
    """Read the roots from the environment; without it everything lives under `./nnood_data`."""
    default = Roots.under(Path.cwd() / "nnood_data")
    return Roots(**{key: Path(os.environ.get(name) or getattr(default, key)) for key, name in VARIABLES.items()})


def set_nnunet_roots(roots: Roots) -> None:
    """Tell nnU-Net the folders, which it reads from the environment of this process and its children."""
    for key, variable in NNUNET_VARIABLES.items():
        os.environ[variable] = str(getattr(roots, key))
