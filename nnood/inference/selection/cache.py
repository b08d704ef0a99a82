"""Where members' score maps of the judged images wait on the disk, so that a killed selection goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from scipy.special import expit

from nnood import __version__
from nnood.inference.calibration import logits
from nnood.inference.selection.images import Image, ImageMaker
from nnood.reconstruction.network import PatchValues
from nnood.safety import atomic_path, digest_of, incomplete_write, sha256


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
        names: Per case and task, a digest of all that the image is made of: changed images are judged anew.
        members: Per member, the digest of its checkpoint and which of its voxel scores is judged.
    """

    folder: Path
    names: dict[tuple[str, str], str]
    members: tuple[str, ...]

    @classmethod
    def of(
        cls, folder: Path, maker: ImageMaker, images: Sequence[Image], members: Sequence[str], method: str
    ) -> "Cache":
        """Hash the image files.

        Args:
            folder: Where to keep everything.
            maker: Makes the images.
            images: All that may be judged.
            members: As in the attributes.
            method: How the foreground is found.
        """
        sources = {(image.case, image.task): maker.sources(image.case, image.task) for image in images}
        hashes = {path: sha256(path) for path in {path for paths in sources.values() for path in paths}}
        common = [__version__, method, maker.settings()]
        names = {key: digest_of([common, key, [hashes[path] for path in paths]]) for key, paths in sources.items()}
        return cls(folder, names, tuple(members))

    def _name(self, image: Image) -> str:
        return self.names[image.case, image.task][:24]

    def map_file(self, image: Image, member: int) -> Path:
        """Where the score map of a member lies."""
        return self.folder / self.members[member][:24] / f"{self._name(image)}.b2nd"

    def patches_file(self, image: Image, member: int) -> Path:
        """Where what an autoencoder knows of the image's patches lies."""
        return self.map_file(image, member).with_suffix(".patches.npz")

    def image_file(self, image: Image) -> Path:
        """Where truth and foreground lie."""
        return self.folder / "images" / f"{self._name(image)}.npz"

    def missing(self, image: Image) -> list[int]:
        """The judges whose score maps are not there yet; all of them if the image itself is not."""
        if not self.image_file(image).is_file():
            return list(image.judges)
        return [member for member in image.judges if not self.map_file(image, member).is_file()]

    def missing_patches(self, image: Image, members: Sequence[int]) -> list[int]:
        """Those judges among some autoencoders whose patch values are not there yet."""
        judges = [member for member in members if member in image.judges]
        return [member for member in judges if not self.patches_file(image, member).is_file()]

    def write_patches(self, image: Image, member: int, values: PatchValues) -> None:
        """Keep what is known of patches."""
        with atomic_path(self.patches_file(image, member)) as temporary, temporary.open("wb") as file:
            np.savez(file, **{key: part.numpy() for key, part in values._asdict().items()})

    def read_patches(self, image: Image, member: int) -> PatchValues:
        """What is known of patches."""
        with np.load(self.patches_file(image, member), allow_pickle=False) as stored:
            return PatchValues(*(torch.from_numpy(stored[key]) for key in PatchValues._fields))

    def write_map(self, image: Image, member: int, scores: np.ndarray) -> None:
        """Keep a score map (Z, Y, X)."""
        # As float16 logits: 2 bytes per voxel, and an error of at most 0.004 up to a logit of 8, on either side.
        values = np.ascontiguousarray(logits(scores).astype(np.float16))
        file = self.map_file(image, member)
        try:
            with atomic_path(file) as temporary:
                blosc2.asarray(values, urlpath=str(temporary), mode="w", cparams={"nthreads": 1})
        except RuntimeError as error:  # Blosc2's word for a failed write
            raise incomplete_write(file) from error

    def read_map(self, image: Image, member: int, slices: slice = slice(None)) -> np.ndarray:
        """A score map (Z, Y, X) float32 in [0, 1], or some slices of it."""
        return expit(self._open(image, member)[slices].astype(np.float32))

    def read_voxels(self, image: Image, member: int, voxels: np.ndarray) -> np.ndarray:
        """The scores (V,) float32 of voxels that are given as positions in the flattened map."""
        return expit(self._open(image, member)[:].ravel()[voxels].astype(np.float32))

    def _open(self, image: Image, member: int) -> Any:
        return blosc2.open(urlpath=str(self.map_file(image, member)), mode="r", dparams={"nthreads": 1})

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
