"""The user's masks of real lesions, brought to one size and kept beside the plans."""

import logging
from pathlib import Path

import numpy as np

from nnood.case_files import image_files, stem
from nnood.errors import UserError, one_error
from nnood.images import read_image
from nnood.parallel import map_cases
from nnood.safety import atomic_path, read_receipt, sha256, write_receipt
from nnood.tasks.lesions import EDGE, MIN_VOXELS, lesion_template

logger = logging.getLogger(__name__)

LESIONS_FILE = "lesion_shapes.npy"


def read_template(file: Path) -> np.ndarray | None:
    """The template of one mask; None if the lesion is too small to have a form.

    Raises:
        UserError: If the file is broken.
    """
    values, geometry = read_image(file)
    spacing = geometry.spacing[::-1]
    if geometry.dimensions == 2:
        spacing = (1.0, *spacing)
    return lesion_template(values.reshape(-1, *values.shape[-2:]) > 0, spacing)


def prepare_lesions(masks: Path, folder: Path, *, processes: int) -> str:
    """Make the file of lesion shapes, unless that is done already.

    Args:
        masks: Folder of masks, one image each; inside is what is above 0.
        folder: The preprocessed data set.
        processes: Worker processes.

    Returns:
        The file's SHA-256.

    Raises:
        UserError: If the folder holds no mask, masks are broken (all are listed), or all lesions are too small.
    """
    files = image_files(masks)
    target, receipt = folder / LESIONS_FILE, folder / f"{LESIONS_FILE}.json"
    known = read_receipt(receipt, settings=EDGE, inputs=files, outputs=[target])
    if known is not None:
        return known["sha256"]
    arguments = {stem(file): (file,) for file in files}
    templates, faults = map_cases(read_template, arguments, processes=processes, description="Reading lesions")
    one_error(faults)
    found = [template for template in templates.values() if template is not None]
    if not found:
        raise UserError(f"{masks} holds no lesion of at least {MIN_VOXELS} voxels.")
    if len(found) < len(files):
        logger.warning("%d lesions of fewer than %d voxels are left out.", len(files) - len(found), MIN_VOXELS)
    with atomic_path(target) as temporary:
        np.save(temporary, np.stack(found))
    digest = sha256(target)
    write_receipt(receipt, settings=EDGE, inputs=files, outputs=[target], result={"sha256": digest})
    return digest
