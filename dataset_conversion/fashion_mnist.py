"""Fashion-MNIST: small pictures of ten kinds of clothing, in four idx files.

Source: Xiao et al., "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", 2017,
arXiv:1708.07747. MIT licence.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from dataset_conversion.cases import array_source
from dataset_conversion.common import normal_images, write_dataset
from nnood.errors import UserError
from nnood.images import ADVICE
from nnood.safety import digest_of, sha256

PARTS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
GZIP = b"\x1f\x8b"
UNSIGNED_BYTES = b"\0\0\x08"  # how the file begins; the number of axes follows


def convert_fashion_mnist(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    name: str,
    *,
    normal: tuple[int, ...] = (0,),
    most: int | None = None,
    link: bool = False,
    processes: int = 1,
) -> Path:
    """Make a raw data set from the files of Fashion-MNIST: some classes are normal, all others are anomalies.

    The normal images of the training split become the training cases, the whole test split the test cases, whose names
    begin with their class.

    Args:
        source: Folder of `train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz`, `t10k-images-idx3-ubyte.gz` and
            `t10k-labels-idx1-ubyte.gz`, or of the same files unpacked and without the last ending.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        normal: Classes that count as normal.
        most: Test images per class, evenly spread over the split; all if None.
        link: Without effect: the files hold many pictures each.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If a file is missing or damaged, files do not fit together, or there is no normal training image.
    """
    if most is not None and most < 1:
        raise UserError(f"At most {most} test images per class leave none; give a number from 1 on.")
    files = {part: _find_file(source, part) for part in PARTS}
    train_images, train_labels = _read_split(files["train-images-idx3-ubyte"], files["train-labels-idx1-ubyte"])
    test_images, test_labels = _read_split(files["t10k-images-idx3-ubyte"], files["t10k-labels-idx1-ubyte"])
    digest = digest_of([sha256(file) for file in files.values()])
    chosen = normal_images(train_labels, normal, source)
    training = {f"train_{i:05d}": array_source(train_images[i], digest) for i in chosen}
    tests = {f"class{test_labels[i]}_test_{i:05d}": i for i in _spread(test_labels, most)}
    sources = {case: array_source(test_images[i], digest) for case, i in tests.items()}
    labels = {case: int(test_labels[i] not in normal) for case, i in tests.items()}
    return write_dataset(raw_root, dataset_id, name, training, sources, labels=labels, link=link, processes=processes)


def _find_file(source: Path, part: str) -> Path:
    """One of the four files; packed if both are there, since a packed file has a checksum."""
    for file in (source / f"{part}.gz", source / part):
        if file.is_file():
            return file
    raise UserError(f"{source / part}.gz does not exist; give the folder of the four files of Fashion-MNIST.")


def _read_split(images_file: Path, labels_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, y, x) and their classes (n)."""
    images, labels = _read_idx(images_file, axes=3), _read_idx(labels_file, axes=1)
    if len(images) != len(labels):
        raise UserError(
            f"{images_file} holds {len(images)} images but {labels_file.name} {len(labels)} labels; {ADVICE}."
        )
    return images, labels


def _read_idx(file: Path, *, axes: int) -> np.ndarray:
    """The unsigned bytes of an idx file, gzipped or not whatever its name."""
    content = file.read_bytes()
    try:
        content = gzip.decompress(content) if content.startswith(GZIP) else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{file} is damaged or cut off ({error}); {ADVICE}.") from error
    expected, header = UNSIGNED_BYTES + bytes([axes]), 4 + 4 * axes
    if not content.startswith(expected):
        raise UserError(f"{file} begins with the bytes {content[:4].hex(' ')}; expected {expected.hex(' ')}, {ADVICE}.")
    shape = struct.unpack(f">{axes}I", content[4:header].ljust(4 * axes, b"\0"))
    if len(content) - header != math.prod(shape) or not math.prod(shape):
        raise UserError(
            f"{file} has {len(content)} bytes, where its header of {header} promises values of shape {shape}; {ADVICE}."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _spread(labels: np.ndarray, most: int | None) -> list[int]:
    """At most so many images of each class, evenly spread from the first to the last."""
    chosen = []
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        steps = np.linspace(0, len(images) - 1, min(len(images), most or len(images)))
        chosen += images[steps.round().astype(int)].tolist()
    return sorted(chosen)
