"""Where the predicted images lie."""

from collections.abc import Collection
from pathlib import Path

from nnood.errors import UserError
from nnood.evaluation.folders import find_images, full_path, read_note
from nnood.paths import Roots


def find_image_folder(
    predictions: Path,
    names: Collection[str],
    *,
    images: Path | None = None,
    labels: Path | None = None,
    roots: Roots | None = None,
    dataset: str | None = None,
) -> Path | None:
    """Find the folder of the predicted images: the user's, or the first likely one that has an image of a case.

    Args:
        predictions: Folder that nnood_predict wrote; where the images lay is noted in it.
        names: The predicted cases.
        images: The user's folder.
        labels: Folder or file of labels; `imagesTs` beside it is tried after what was noted.
        roots: The three root folders; needed with `dataset`.
        dataset: Name of a data set; its `imagesTs` is tried last.

    Returns:
        The folder, or None if none of the likely ones has an image.

    Raises:
        UserError: If the user's folder has no image of any case, or the note is broken.
    """
    if images is not None:
        if not images.is_dir():
            raise UserError(f"{images} is not a folder; give the folder that holds the predicted images.")
        if not _has_any(images, names):
            raise UserError(
                f"{images}: Expected images of the cases in {predictions}, such as {min(names)}, but got none; give "
                "the folder that holds the predicted images."
            )
        return images
    noted = read_note(predictions).get("images")
    # The note may be of another machine, and its folder be gone or have been filled anew since.
    candidates = [Path(str(noted))] if noted else []
    if labels is not None:
        candidates.append(full_path(labels).parent / "imagesTs")
    if roots is not None and dataset is not None:
        candidates.append(roots.raw / dataset / "imagesTs")
    return next((folder for folder in candidates if _has_any(folder, names)), None)


def _has_any(folder: Path, names: Collection[str]) -> bool:
    return not find_images(folder, names).keys().isdisjoint(names)
