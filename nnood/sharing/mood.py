"""What runs in the MOOD challenge's container: one file per image, and nothing else in the folder of results."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from nnood.case_files import image_files
from nnood.errors import UserError
from nnood.images import read_case, write_image
from nnood.inference.inference_plan import PLAN_FILE
from nnood.inference.predict import Planned, follow_plan, refuse_flat, score_image
from nnood.inference.predictor import MapPredictor
from nnood.paths import Roots
from nnood.precision import choose_device
from nnood.safety import remove_leftovers, write_text

KINDS = ("pixel", "sample")
ENDING = ".nii.gz"


def main() -> None:
    """What the container's scripts call; exits with a status other than 0 if any image could not be scored."""
    parser = argparse.ArgumentParser("nnood.sharing.mood", description="Score images as the MOOD challenge wants it.")
    parser.add_argument("kind", choices=KINDS, help="score maps (pixel) or one score per image (sample)")
    for name, text in (("model", "folder of an unpacked model"), ("input", "images"), ("output", "for the scores")):
        parser.add_argument(name, type=Path, help=text)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    try:
        planned = load_unpacked(arguments.model)
        faults = score_folder(arguments.kind, planned, arguments.input, arguments.output, device=arguments.device)
    except (UserError, OSError) as error:
        faults = [str(error)]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


def load_unpacked(folder: Path) -> Planned:
    """Plan and members of the one model in a folder.

    Raises:
        UserError: If there is none, or it is not as it was written.
    """
    plans = sorted(folder.glob(f"*/{PLAN_FILE}"))
    if len(plans) != 1:
        raise UserError(f"Expected one model in {folder}, but got {len(plans)}; write the folder anew.")
    return follow_plan(plans[0], Roots(folder, folder, folder))


def score_folder(kind: str, planned: Planned, inputs: Path, output: Path, *, device: str = "auto") -> list[str]:
    """Write the scores of each image, one after the other.

    Args:
        kind: `pixel`: `OUT/FILE`, a score map in the geometry of the image; `sample`: `OUT/FILE.txt`, one number.
        planned: Members and plan.
        inputs: Folder of images `*.nii.gz`, each a case.
        output: Gets these files, each when it is whole, and no others.
        device: As `nnood.precision.choose_device` takes it.

    Returns:
        One sentence per image that could not be scored; the others are, whatever happened to it.

    Raises:
        UserError: If there are no images or there is no such device.
    """
    files = image_files(inputs, ENDING)
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    predictor = MapPredictor(planned.members, choose_device(device))
    faults = []
    for file in tqdm(files, desc="Scoring", unit="image", disable=None):
        try:
            _score_file(kind, predictor, planned, file, output)
        except Exception as error:  # whatever it is, it must not cost the other images
            faults.append(f"{file.name} has no score: {error}")
    return faults


def _score_file(kind: str, predictor: MapPredictor, planned: Planned, file: Path, output: Path) -> None:
    image, geometry = read_case([file], planned.channels)
    refuse_flat(file, geometry, planned.members)
    score_map, score = score_image(predictor, planned, image, geometry)
    if kind == "pixel":
        write_image(score_map, geometry, output / file.name)
    else:
        write_text(output / f"{file.name}.txt", f"{score:.9g}\n")
