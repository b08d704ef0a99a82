"""Where members' score maps of the judged images wait on the disk, so that a killed selection goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np
from scipy.special import expit

from nnood.inference.calibration import logits
from nnood.inference.selection.images import Image
from nnood.safety import atomic_path, digest_of, sha256


@dataclass(frozen=True)
class JudgedImage:
    """What is known of an image besides its score maps.

    Attributes:
        truth: What is anomalous, bool (Z, Y, X).
        foreground: As it is found in this very image, bool (Z, Y, X).
        spacing: In mm, (z, y, x).
    """

    truth: np.ndarray
    foreground: np.ndarray
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Cache:
    """Files of one selection.

    Attributes:
        folder: Where they lie.
        sources: Per case, a digest of its image files: changed images are judged anew.
        members: Per member, the digest of its checkpoint.
    """

    folder: Path
    sources: dict[str, str]
    members: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, files: dict[str, list[Path]], members: Sequence[str]) -> "Cache":
        """Hash the image files.

        Args:
            folder: Where to keep everything.
            files: Of each case that may be judged.
            members: Digests of the members' checkpoints.
        """
        sources = {case: digest_of([sha256(path) for path in paths]) for case, paths in files.items()}
        return cls(folder, sources, tuple(members))

    def _name(self, image: Image) -> str:
        return digest_of([self.sources[image.case], image.case, image.task])[:24]

    def map_file(self, image: Image, member: int) -> Path:
        """Where the score map of a member lies."""
        return self.folder / self.members[member][:24] / f"{self._name(image)}.b2nd"

    def image_file(self, image: Image) -> Path:
        """Where truth and foreground lie."""
        return self.folder / "images" / f"{self._name(image)}.npz"

    def missing(self, image: Image) -> list[int]:
        """The judges whose score maps are not there yet; all of them if the image itself is not."""
        if not self.image_file(image).is_file():
            return list(image.judges)
        return [member for member in image.judges if not self.map_file(image, member).is_file()]

    def write_map(self, image: Image, member: int, scores: np.ndarray) -> None:
        """Keep a score map (Z, Y, X)."""
        # As float16 logits: 2 bytes per voxel, and an error of at most 0.004 up to a logit of 8, on either side.
        values = np.ascontiguousarray(logits(scores).astype(np.float16))
        with atomic_path(self.map_file(image, member)) as temporary:
            blosc2.asarray(values, urlpath=str(temporary), mode="w", cparams={"nthreads": 1})

    def read_map(self, image: Image, member: int) -> np.ndarray:
        """A score map (Z, Y, X) float32 in [0, 1]."""
        stored = blosc2.open(urlpath=str(self.map_file(image, member)), mode="r", dparams={"nthreads": 1})
        return expit(stored[:].astype(np.float32))

    def write_image(self, image: Image, judged: JudgedImage) -> None:
        """Keep truth and foreground."""
        with atomic_path(self.image_file(image)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                truth=np.packbits(judged.truth),
                foreground=np.packbits(judged.foreground),
                shape=judged.truth.shape,
                spacing=judged.spacing,
            )

    def read_image(self, image: Image) -> JudgedImage:
        """Truth and foreground."""
        with np.load(self.image_file(image), allow_pickle=False) as stored:
            shape = tuple(stored["shape"].tolist())
            truth, foreground = (
                np.unpackbits(stored[key], count=int(np.prod(shape))).reshape(shape).astype(bool)
                for key in ("truth", "foreground")
            )
            z, y, x = stored["spacing"].tolist()
        return JudgedImage(truth, foreground, (z, y, x))
