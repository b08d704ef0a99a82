"""MedMNIST: small medical images with class labels, one `.npz` archive per data set.

Source: Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image
classification", Scientific Data 10, 41 (2023), https://medmnist.com. Licence CC BY 4.0 (DermaMNIST: CC BY-NC 4.0).
"""

from pathlib import Path

import numpy as np

from dataset_conversion.cases import array_source
from dataset_conversion.common import normal_images, write_dataset
from nnood.errors import UserError
from nnood.images import DECODER_ERRORS
from nnood.safety import sha256

KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def convert_medmnist(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    name: str,
    *,
    normal: tuple[int, ...] = (0,),
    link: bool = False,
    processes: int = 1,
) -> Path:
    """Make a raw data set from a MedMNIST archive: some classes are normal, all others are anomalies.

    The normal images of the train split become the training cases, the whole test split the test cases. The val split
    is left out.

    Args:
        source: The `.npz` file; images of shape (n, y, x), (n, y, x, 3) or (n, z, y, x), labels (n, 1).
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        normal: Classes that count as normal.
        link: Without effect: an archive holds no files to link to.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If the archive is damaged, is no MedMNIST archive, or has no normal training image.
    """
    arrays = _read_archive(source)
    train_labels, test_labels = (_classes(arrays[f"{split}_labels"], source) for split in ("train", "test"))
    chosen = normal_images(train_labels, normal, source)
    digest = sha256(source)
    training = {f"train_{i:05d}": array_source(arrays["train_images"][i], digest) for i in chosen}
    tests = {f"test_{i:05d}": array_source(image, digest) for i, image in enumerate(arrays["test_images"])}
    labels = (~np.isin(test_labels, normal)).astype(int).tolist()
    by_case = dict(zip(tests, labels, strict=True))
    return write_dataset(raw_root, dataset_id, name, training, tests, labels=by_case, link=link, processes=processes)


def _read_archive(archive: Path) -> dict[str, np.ndarray]:
    """Read the arrays that are needed and check that they fit together."""
    try:
        with archive.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {key: content[key] for key in KEYS}
    except DECODER_ERRORS as error:
        raise UserError(
            f"{archive} is no intact MedMNIST archive ({error}); expected an .npz file with {', '.join(KEYS)}."
        ) from error
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.shape[:1] != labels.shape[:1] or images.ndim not in (3, 4) or images.dtype != np.uint8:
            raise UserError(
                f"{archive}: {split}_images is {images.dtype} of shape {images.shape}, the labels are of shape "
                f"{labels.shape}; expected uint8 of shape (n, y, x), (n, y, x, 3) or (n, z, y, x) and n labels."
            )
    return arrays


def _classes(labels: np.ndarray, archive: Path) -> np.ndarray:
    """One class per image."""
    if labels.size != len(labels):
        raise UserError(f"{archive} has {labels.shape[1:]} labels per image; expected one class per image.")
    return labels.reshape(-1)
