"""IXI: whole-head MRI of about 600 healthy adults from three hospitals in London.

Source: IXI Dataset, https://brain-development.org/ixi-dataset. Licence CC BY-SA 3.0.

Normal: every image of one modality (T1, T2 or PD). Held out: the last 20 % of the people, by name, as normal test
cases, from which nnood_make_benchmark makes anomalous ones. A person's images stay together (groups.csv).
"""

import logging
import re
from pathlib import Path

from dataset_conversion.cases import files_source
from dataset_conversion.common import write_dataset
from dataset_conversion.hold_out import hold_out
from dataset_conversion.trees import first_folder
from nnood.case_files import group_by_case, image_files
from nnood.errors import one_error

MODALITIES = ("T1", "T2", "PD")

logger = logging.getLogger(__name__)


def convert_ixi(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    name: str,
    *,
    modality: str = "T1",
    link: bool = False,
    processes: int = 1,
) -> Path:
    """Make a raw data set of normal images of one modality, those of the last 20 % of the people as test cases.

    Args:
        source: Folder of IXI002-Guys-0828-T1.nii.gz and so on, or the folder above it.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        modality: One of `MODALITIES`; other images are left out.
        link: Make symbolic links in the place of copies.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If there are no images of the modality, or bad ones; these are listed after the good ones were
            converted.
    """
    candidates = (f"IXI-{modality}", modality.lower(), modality, ".")
    folder = first_folder(source, candidates, f"IXI*[-_]{modality}.nii.gz", f"the folder of IXI's {modality} images")
    # Downloads have a hyphen before the modality, some copies an underscore.
    pattern = re.compile(rf"^(?P<person>IXI\d+)\b.*[-_]{modality}$")
    found, faults = group_by_case(image_files(folder, ".nii.gz"), numbered=False)
    one_error(faults)
    people = {case: match["person"] for case in found if (match := pattern.match(case))}
    if others := sorted(set(found) - set(people)):
        logger.warning("%s: %d images are of no %s, such as %s; left out.", folder, len(others), modality, others[0])
    training, tests = hold_out(people, people, folder)
    return write_dataset(
        raw_root,
        dataset_id,
        name,
        {case: files_source(found[case]) for case in training},
        {case: files_source(found[case]) for case in tests},
        labels=dict.fromkeys(tests, 0),
        groups=people,
        channel_names=[modality],
        link=link,
        processes=processes,
    )
