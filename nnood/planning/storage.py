"""How a preprocessed case lies on the disk: nnU-Net's Blosc2 arrays, and JSON and .npy in the place of its pickles."""

import contextlib
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

from nnood.safety import atomic_path, incomplete_write

PROPERTIES_FOLDER = "properties"
FOREGROUND_FOLDER = "foreground"


class CaseStore(nnUNetDatasetBlosc2):
    """nnU-Net's data set of Blosc2 arrays, without pickles.

    `folder/CASE.b2nd` is the image (C, Z, Y, X) float32, `folder/CASE_seg.b2nd` the foreground (1, Z, Y, X) int16 (-1
    outside of the image's non-zero region), `folder/properties/CASE.npy` (N, 4) sampled foreground positions. Where
    anomalies were planted beforehand, they are a second channel of the segmentation and the positions are theirs.
    """

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
        """Open a case lazily; returns image, foreground, None and what nnU-Net's loader asks for."""
        folder = Path(self.source_folder)
        arrays = [
            blosc2.open(urlpath=str(folder / name), mode="r", dparams={"nthreads": 1}, **self.mmap_kwargs)
            for name in (f"{identifier}.b2nd", f"{identifier}_seg.b2nd")
        ]
        locations = np.load(folder / PROPERTIES_FOLDER / f"{identifier}.npy", allow_pickle=False)
        return arrays[0], arrays[1], None, {"class_locations": {1: locations}}

    def load_whole(self, identifier: str) -> tuple[np.ndarray, np.ndarray]:
        """All of a case: image (C, Z, Y, X) float32 and foreground (Z, Y, X) bool."""
        image, segmentation, _, _ = self.load_case(identifier)
        return np.asarray(image[:], dtype=np.float32), segmentation[:][0] == 1


def foreground_file(folder: Path, case: str) -> Path:
    """The foreground mask of a training case of the preprocessed data set `folder`."""
    return folder / FOREGROUND_FOLDER / f"{case}.nii.gz"


def case_files(folder: Path, case: str) -> list[Path]:
    """The files that make up a stored case."""
    return [folder / f"{case}.b2nd", folder / f"{case}_seg.b2nd", folder / PROPERTIES_FOLDER / f"{case}.npy"]


def receipt_file(folder: Path, case: str) -> Path:
    """Where the receipt of a stored case lies."""
    return folder / PROPERTIES_FOLDER / f"{case}.json"


def save_case(
    folder: Path,
    case: str,
    image: np.ndarray,
    foreground: np.ndarray,
    locations: np.ndarray,
    patch_size: tuple[int, ...],
) -> None:
    """Write a case with nnU-Net's own compression settings, atomically, and read it back.

    Args:
        folder: The configuration's folder.
        case: Case name.
        image: Preprocessed values (C, Z, Y, X).
        foreground: Preprocessed mask (1, Z, Y, X) with -1, 0, 1; (2, Z, Y, X) if that of anomalies follows.
        locations: Sampled positions (N, 4) of the foreground, or of the anomaly.
        patch_size: Of the configuration; the chunks follow it.

    Raises:
        OSError: If the disk is full or what was written reads back differently.
    """
    image, foreground = image.astype(np.float32, copy=False), foreground.astype(np.int16, copy=False)
    blocks, chunks = comp_blosc2_params(image.shape, patch_size, image.itemsize)
    blocks_seg, chunks_seg = comp_blosc2_params(foreground.shape, patch_size, foreground.itemsize)
    try:
        with contextlib.ExitStack() as stack:
            temporaries = [stack.enter_context(atomic_path(final)) for final in case_files(folder, case)]
            truncated = str(temporaries[0]).removesuffix(".b2nd")  # nnU-Net appends the endings of all its files
            stack.callback(Path(f"{truncated}.pkl").unlink, missing_ok=True)
            CaseStore.save_case(
                image,
                foreground,
                {},
                truncated,
                chunks=chunks,
                blocks=blocks,
                chunks_seg=chunks_seg,
                blocks_seg=blocks_seg,
            )
            np.save(temporaries[2], locations)
            for temporary, expected in zip(temporaries, (image, foreground), strict=False):
                if not np.array_equal(blosc2.open(urlpath=str(temporary), mode="r")[:], expected):
                    raise incomplete_write(folder / case)
    except RuntimeError as error:  # Blosc2's word for a failed write
        raise incomplete_write(folder / case) from error
