"""Anomalies planted in each training case once, before training, as in a data set made for stock nnU-Net."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from tqdm import tqdm

from nnood.planning.storage import PROPERTIES_FOLDER, CaseStore, case_files, receipt_file, save_case
from nnood.safety import describe_files, read_receipt, remove_leftovers, write_receipt
from nnood.tasks import TaskSettings
from nnood.tasks.draws import choice
from nnood.training.fixed_anomalies import fit_to, measure_stored, plant_in_case, seed_of
from nnood.training.planting import recipe_settings, recipe_shares
from nnood.training.recipe import Recipe
from nnood.training.validation import NORMAL, donor_of
from nnood.views import View

OFFLINE_FOLDER = "offline"
ANOMALY_CHANNEL = 1


@dataclass(frozen=True)
class Planted:
    """What became of one case.

    Attributes:
        task: That was drawn, or `NORMAL`.
        voxels: That are anomalous.
    """

    task: str
    voxels: int


@dataclass(frozen=True, eq=False)
class OfflineCases:
    """Training cases with anomalies, stored as preprocessed cases are.

    Of each there is one copy: the image with the anomaly; as segmentation the foreground as it was and, in the second
    channel, the anomaly (0, 1); as the positions that nnU-Net's loader draws patches from, those of the anomaly, or of
    the foreground where there is none. Everything is decided by the seed and the name of the case, so that a second
    run makes the same files.

    Attributes:
        store: The training cases, as preprocessed.
        recipe: Says shares, label, repetition and sizes.
        tasks: Names of the fold's training tasks.
        settings: Of the configuration; what can be measured on a case itself is not taken from here.
        first_spacing: Of the stored cases' first axis, in mm, if the configuration's patches lack that axis.
        patch_size: Of the configuration that the cases were stored for; the copies' chunks follow it too.
        seed: Of the run.
        folder: Where to write.
        lenders: Cases of another data set that lend all foreign patches; if None, the other training cases do.
    """

    store: CaseStore
    recipe: Recipe
    tasks: Sequence[str]
    settings: TaskSettings
    first_spacing: float
    patch_size: Sequence[int]
    seed: int
    folder: Path
    lenders: CaseStore | None = None

    def planted_store(self) -> CaseStore:
        """What to train on, once all cases are planted."""
        return CaseStore(str(self.folder), list(self.store.identifiers))

    def plant(
        self, cases: Sequence[str], check: Callable[[], None] = lambda: None, *, silent: bool = False
    ) -> dict[str, Planted]:
        """Plant in some of the cases, or in all; what is there and sound already stays.

        Args:
            cases: Names; several ranks can share the work.
            check: Called before each case; may raise to end it here.
            silent: No progress bar.

        Raises:
            OSError: If the disk is full.
        """
        for folder in (self.folder, self.folder / PROPERTIES_FOLDER):
            remove_leftovers(folder)
        done = {}
        for case in tqdm(cases, desc="Planting anomalies", unit="case", leave=False, disable=True if silent else None):
            check()
            done[case] = self._plant_case(case)
        return done

    def _plant_case(self, case: str) -> Planted:
        task = self._draw_task(case)
        seed = seed_of(OFFLINE_FOLDER, str(self.seed), case, task)
        lenders = self.lenders or self.store
        donor = donor_of(case, lenders.identifiers, seed)
        settings = self._all_that_decides(task, lenders, donor)
        inputs, outputs = case_files(Path(self.store.source_folder), case), case_files(self.folder, case)
        receipt = receipt_file(self.folder, case)
        known = read_receipt(receipt, settings=settings, inputs=inputs, outputs=outputs)
        if known is not None:
            return Planted(**known)
        image, segmentation = _load(self.store, case)
        anomaly = np.zeros(segmentation.shape, bool)
        if task != NORMAL:
            other, other_segmentation = _load(lenders, donor)
            fitted = fit_to(other, other_segmentation[0] == 1, image.shape[1:])
            foreground = segmentation[0] == 1
            measured = measure_stored(image, foreground, self.first_spacing, self.settings)
            own = recipe_settings(measured, self.recipe)
            planted, label = plant_in_case(image, foreground, fitted, task, own, seed)
            image, anomaly = planted.numpy(), label.numpy()[None] > 0
        save_case(
            self.folder,
            case,
            image,
            np.concatenate([segmentation, anomaly], dtype=np.int16),
            self._positions(case, anomaly),
            tuple(self.patch_size),
        )
        result = Planted(task, int(anomaly.sum()))
        write_receipt(receipt, settings=settings, inputs=inputs, outputs=outputs, result=asdict(result))
        return result

    def _draw_task(self, case: str) -> str:
        """One of the tasks by its share, or `NORMAL`."""
        shares, normal = recipe_shares(self.recipe, self.tasks)
        generator = torch.Generator().manual_seed(seed_of(OFFLINE_FOLDER, str(self.seed), case))
        return (*self.tasks, NORMAL)[choice(generator, (*shares.values(), normal), 1)[0]]

    def _positions(self, case: str, anomaly: np.ndarray) -> np.ndarray:
        """Positions (N, 4) for nnU-Net's oversampling, drawn from the anomaly (1, Z, Y, X) as nnU-Net does."""
        if not anomaly.any():
            return self.store.load_case(case)[3]["class_locations"][1]
        sampled = DefaultPreprocessor._sample_foreground_locations(anomaly.astype(np.int8), [1])[1]
        return np.asarray(sampled, dtype=np.int32)

    def _all_that_decides(self, task: str, lenders: CaseStore, donor: str) -> dict[str, Any]:
        """What a case's files depend on, besides the case itself."""
        effective = recipe_settings(self.settings, self.recipe)
        lesions = effective.lesions
        return {
            "task": task,
            "seed": self.seed,
            "fractions": effective.fractions,
            "label": effective.label,
            "repeat": effective.repeat,
            "spacing": (self.first_spacing, *effective.spacing),
            "lesions": None if lesions is None else hashlib.sha256(lesions.numpy().tobytes()).hexdigest(),
            "patch_size": tuple(self.patch_size),
            # Beside the input files, whose record knows names only: a lender may have the case's own name.
            "donor": describe_files(case_files(Path(lenders.source_folder), donor)),
        }


def _load(store: CaseStore, case: str) -> tuple[np.ndarray, np.ndarray]:
    """Image (C, Z, Y, X) and segmentation (1, Z, Y, X)."""
    image, segmentation, _, _ = store.load_case(case)
    return np.asarray(image[:], dtype=np.float32), np.asarray(segmentation[:])


def describe_planted(planted: Mapping[str, Planted]) -> str:
    """One line for the log: how many cases have an anomaly of which task, and where none could be planted."""
    counts = Counter(one.task for one in planted.values() if one.voxels)
    told = [f"{task} {count}" for task, count in sorted(counts.items())]
    normal = sum(one.task == NORMAL for one in planted.values())
    failed = sorted(case for case, one in planted.items() if one.task != NORMAL and not one.voxels)
    line = f"Anomalies planted before training, in cases: {', '.join(told) or 'none'}; left normal: {normal}."
    return f"{line} Nothing could be planted in {len(failed)}: {', '.join(failed)}." if failed else line


class OfflinePlanter:
    """Takes batches of `OfflineCases` apart; stands in the place of a `Planter`, but draws nothing and keeps nothing.

    Attributes:
        failed: Always 0: what could not be planted was counted before training.
    """

    failed = 0

    def __init__(self, device: torch.device, views: Sequence[View] = (View(),)) -> None:
        """Deliver to a device.

        Args:
            device: Where to.
            views: From where the networks see cases; a batch that says none is seen from the first.
        """
        self._device = device
        self._views = tuple(views)

    def start_epoch(self, seed: int) -> None:
        """Nothing begins anew."""

    def start_step(self, seed: int) -> None:
        """Nothing is random."""

    def state(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to go on from."""

    def __call__(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (B, C, *S) and label (B, 1, *S), 1 where anomalous, on the device.

        A batch of slabs (B, C, k, H, W) becomes (B, C * k, H, W), with the label of the middle slices.
        """
        view = self._views[batch.get("view", 0)]
        image = view.fold(batch["data"].to(self._device, non_blocking=True))
        anomaly = batch["target"][:, ANOMALY_CHANNEL : ANOMALY_CHANNEL + 1].to(self._device, non_blocking=True)
        return image, (view.middle(anomaly) == 1).float()  # nnU-Net pads with -1
