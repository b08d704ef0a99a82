"""ChestX-ray14: frontal chest X-rays of the NIH Clinical Center; normal are those in which no finding was reported.

Source: Wang et al., "ChestX-ray8: Hospital-scale chest X-ray database and benchmarks on weakly-supervised
classification and localization of common thorax diseases", CVPR 2017, https://nihcc.app.box.com/v/ChestXray-NIHCC.
Free for any use, if the NIH Clinical Center and the paper are named.

Protocol: adults in posteroanterior view, men and women apart if wanted, as in Tan et al., "Detecting outliers with
Poisson image interpolation", MICCAI 2021, arXiv:2107.02622; but with the published division into patients for training
and for testing. Training cases are the images of `train_val_list.txt` without a finding, test cases all images of
`test_list.txt`. Findings were mined from reports, so that some labels are wrong. There are boxes for some findings of
some test images only; they are left out, since an anomalous image without a mask would count as normal.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from dataset_conversion.cases import Source
from dataset_conversion.common import write_dataset
from dataset_conversion.tables import Row, read_table
from nnood.errors import UserError, one_error
from nnood.geometry import Geometry
from nnood.images import read_channels, refuse_constant

COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position")
SEX_COLUMNS = ("Patient Gender", "Patient Sex")  # the name changed between releases
SEXES = ("M", "F", "both")
NORMAL = "No Finding"
AGE = re.compile(r"^0*(?P<number>\d+)(?P<unit>[YMWD]?)$")
PER_YEAR = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}
ADULT, OLDEST = 18, 120  # a few ages, such as 414, are slips of the pen


def convert_chestxray14(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    name: str,
    *,
    sex: str = "both",
    link: bool = False,
    processes: int = 1,
) -> Path:
    """Make a raw data set of adults in posteroanterior view.

    Args:
        source: Folder of `Data_Entry_2017*.csv`, `train_val_list.txt`, `test_list.txt`, and the PNG files in `images/`
            or `images_001/images/` and so on.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        sex: Of the patients, one of `SEXES`.
        link: Without effect: pictures are stored as NIfTI.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If a table or an image is missing, the lists share a patient, or images are bad; bad images are
            listed after the good ones were converted.
    """
    if sex not in SEXES:
        raise UserError(f"{sex!r} is no sex in ChestX-ray14; expected one of {', '.join(SEXES)}.")
    table = _find_table(source)
    rows = {row["Image Index"]: row for row in read_table(table, COLUMNS)}
    train, test = (_read_list(source / file, rows, table) for file in ("train_val_list.txt", "test_list.txt"))
    if shared := {row["Patient ID"] for row in train} & {row["Patient ID"] for row in test}:
        raise UserError(f"{source}: patient {min(shared)} is in both lists; replace the lists by intact copies.")
    train, test = ([row for row in part if _is_chosen(row, sex, table)] for part in (train, test))
    normal = [row for row in train if row["Finding Labels"] == NORMAL]
    if not normal:
        raise UserError(f"{source} has no image to train on: sex {sex}, adult, view PA, {NORMAL}.")

    files = {file.name: file for pattern in ("images", "images_*/images") for file in source.glob(f"{pattern}/*.png")}
    if missing := [row["Image Index"] for row in [*normal, *test] if row["Image Index"] not in files]:
        raise UserError(
            f"{source} lacks {len(missing)} image(s), such as {missing[0]}; unpack all archives, or take the names of "
            "images that you do without out of the lists."
        )
    return write_dataset(
        raw_root,
        dataset_id,
        name,
        dict(_sources(normal, files)),
        dict(_sources(test, files)),
        labels={_case(row): int(row["Finding Labels"] != NORMAL) for row in test},
        groups={_case(row): row["Patient ID"] for row in normal},
        link=link,
        processes=processes,
    )


def _find_table(source: Path) -> Path:
    tables = sorted(source.glob("Data_Entry_2017*.csv"))
    if not tables:
        raise UserError(f"{source} holds no Data_Entry_2017*.csv; give the folder in which ChestX-ray14 was unpacked.")
    return tables[-1]


def _read_list(file: Path, rows: dict[str, Row], table: Path) -> list[Row]:
    """The rows of the images that a list names."""
    if not file.is_file():
        raise UserError(f"{file} does not exist; get it from where the images come from.")
    names = file.read_text(encoding="utf-8", errors="replace").split()
    if unknown := [name for name in names if name not in rows]:
        raise UserError(
            f"{file} names {len(unknown)} image(s) that {table.name} lacks, such as {unknown[0]}; "
            "replace both by intact copies."
        )
    return [rows[name] for name in names]


def _is_chosen(row: Row, sex: str, table: Path) -> bool:
    """Whether an image belongs to the chosen adults."""
    age = AGE.match(row["Patient Age"])
    found = next((row[column] for column in SEX_COLUMNS if column in row), "")
    one_error(
        [
            f"{table}: {row['Image Index']} has the {what}; correct it or replace the table by an intact copy."
            for what, is_wrong in ((f"age {row['Patient Age']!r}", not age), (f"sex {found!r}", found not in SEXES[:2]))
            if is_wrong
        ]
    )
    years = int(age["number"]) / PER_YEAR[age["unit"]] if age else 0
    return ADULT <= years <= OLDEST and row["View Position"] == "PA" and sex in (found, "both")


def _case(row: Row) -> str:
    return row["Image Index"].removesuffix(".png")


def _sources(rows: list[Row], files: dict[str, Path]) -> Iterator[tuple[str, Source]]:
    for row in rows:
        file = files[row["Image Index"]]
        yield _case(row), Source(partial(_load_grey, file), inputs=(file,))


def _load_grey(file: Path) -> tuple[list[np.ndarray], Geometry]:
    """The one channel of an X-ray, which some of the files hold three times, with an alpha channel."""
    channels, geometry = read_channels([file])
    if any((channel != channels[0]).any() for channel in channels[1:]):
        raise UserError(f"{file} is a colour picture; expected a grey X-ray, replace the file by an intact copy.")
    refuse_constant(channels, file)
    return channels[:1], geometry
