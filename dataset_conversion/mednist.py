"""MedNIST: small pictures of six kinds of medical image, in one folder per kind.

Source: gathered by B. J. Erickson (Mayo Clinic) from several public sets; used in the tutorials of MONAI. Licence CC
BY-SA 4.0.
"""

from pathlib import Path

from dataset_conversion.cases import Source, files_source
from dataset_conversion.common import write_dataset
from dataset_conversion.hold_out import TRAINING_PERCENT
from nnood.case_files import Cases, group_by_case, image_files
from nnood.errors import UserError, one_error


def convert_mednist(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    name: str,
    *,
    normal: tuple[str, ...],
    link: bool = False,
    processes: int = 1,
) -> Path:
    """Make a raw data set from the folders of MedNIST: some classes are normal, all others are anomalies.

    The files of each class are sorted by name. The first 80 % of a normal class are training cases; the other 20 %, and
    the last 20 % of every other class, are test cases.

    Args:
        source: Folder of one folder of JPEG files per class.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        normal: Names of the classes that count as normal.
        link: Without effect: pictures are stored as NIfTI.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If a normal class is missing or has too few images to train on, a class has none, or images are bad;
            bad images are listed after the good ones were converted.
    """
    classes = _read_classes(source)
    if not normal or not set(normal) <= set(classes):
        raise UserError(f"{source} has no normal classes {list(normal)}; choose from its classes {list(classes)}.")
    training: dict[str, Source] = {}
    tests: dict[str, Source] = {}
    labels: dict[str, int] = {}
    for label, cases in classes.items():
        sources = {f"{label}_{case}": files_source(files) for case, files in cases.items()}
        names = list(sources)
        first_test = len(names) * TRAINING_PERCENT // 100
        if label in normal:
            if not first_test:
                raise UserError(f"{source / label} holds {len(names)} image(s); training needs 2 or more, add some.")
            training |= {case: sources[case] for case in names[:first_test]}
        tests |= {case: sources[case] for case in names[first_test:]}
        labels |= dict.fromkeys(names[first_test:], int(label not in normal))
    return write_dataset(raw_root, dataset_id, name, training, tests, labels=labels, link=link, processes=processes)


def _read_classes(source: Path) -> dict[str, Cases]:
    """The images of each class, sorted by name."""
    if not source.is_dir():
        raise UserError(f"{source} is not a folder; give the folder that holds the classes of MedNIST.")
    classes, faults = {}, []
    for folder in sorted(source.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            classes[folder.name], more = group_by_case(image_files(folder), numbered=False)
            faults += more
    one_error(faults)
    return classes
