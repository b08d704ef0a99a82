"""From folders to a report: what is known of the predictions is gathered, evaluated and written as a page."""

import logging
from pathlib import Path

from nnood.datasets import find_dataset_name
from nnood.errors import UserError
from nnood.evaluation.baselines import baselines_beside
from nnood.evaluation.evaluate import evaluate
from nnood.evaluation.folders import read_note, read_sample_scores
from nnood.evaluation.report.image_folder import find_image_folder
from nnood.evaluation.report.write import write_report
from nnood.paths import Roots

logger = logging.getLogger(__name__)


def report(
    output: Path,
    roots: Roots,
    *,
    dataset: str | None = None,
    predictions: Path | None = None,
    labels: Path | None = None,
    images: Path | None = None,
    threshold: float | None = None,
    baselines: bool = False,
) -> Path:
    """Write a report on a data set's training, on predictions, or on both.

    Args:
        output: The HTML file to write.
        roots: The three root folders.
        dataset: Id or name of the data set; what nnood_predict noted beside the predictions if None.
        predictions: Folder that nnood_predict wrote.
        labels: As for `nnood.evaluation.evaluate.evaluate`; without them the report is a reading list.
        images: Folder of the predicted images; what `find_image_folder` finds if None.
        threshold: Score from which a voxel is called anomalous, for the Dice at a threshold.
        baselines: Whether to show beside the figures what is reached without any training.

    Returns:
        The file.

    Raises:
        UserError: If something does not exist, is broken, or there is nothing to report.
    """
    if output.is_dir():
        raise UserError(f"{output} is a folder; name the file to write, such as {output / 'report.html'}.")
    if predictions is None and (images is not None or labels is not None or baselines):
        raise UserError("Images, labels and baselines need predictions to go with; name their folder with -p.")
    if labels is None and baselines:
        raise UserError("Baselines need labels to be judged by; name them with -l.")
    name = None if dataset is None else find_dataset_name(dataset, roots)
    evaluation, others = None, {}
    if predictions is not None:
        note = read_note(predictions)
        noted = note.get("dataset")
        if name is not None and noted is not None and name != noted:
            raise UserError(f"{predictions} was predicted by networks of {noted}, not of {name}; leave out -d.")
        # What was noted may be gone, or have been on another machine.
        if name is None and (roots.results / str(noted)).is_dir():
            name = noted
        names = read_sample_scores(predictions)
        missing = sorted(set(note.get("cases", ())) - set(names))
        if missing:
            logger.warning(
                "%s lacks %d of %d cases, such as %s; go on with nnood_predict.",
                *(predictions, len(missing), len(note["cases"]), missing[0]),
            )
        images = find_image_folder(predictions, names, images=images, labels=labels, roots=roots, dataset=name)
    if predictions is not None and labels is not None:
        evaluation = evaluate(predictions, labels, threshold=threshold)
        if baselines:
            others = baselines_beside(predictions, labels, roots, dataset=name, images=images, threshold=threshold)
    return write_report(
        output,
        roots=roots,
        dataset=name,
        predictions=predictions,
        images=images,
        labels=labels,
        evaluation=evaluation,
        baselines=others,
    )
