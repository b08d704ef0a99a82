"""nnU-Net's sliding window with trained members: one image in, one score map out."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.inference.export import score_map_from_logits
from nnood.network import OneHead, build_network
from nnood.plan import NnoodPlan
from nnood.planning.preprocessor import preprocess_image
from nnood.precision import autocast_for
from nnood.safety import read_json
from nnood.training.checkpoints import FINAL, load_checkpoint


class SlidingWindow(nnUNetPredictor):
    """nnU-Net's predictor, in the CPU's fast arithmetic; sums stay in higher precision."""

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        with autocast_for(self.device):
            return super()._internal_maybe_mirror_and_predict(x).float()


@dataclass(frozen=True)
class Model:
    """Trained members of one recipe and configuration.

    Attributes:
        folder: Where they live.
        plans: nnU-Net's plans with nnood's block.
        configuration: Name of the configuration.
        dataset_json: In nnU-Net's keys.
        checkpoints: One file per member.
    """

    folder: Path
    plans: dict[str, Any]
    configuration: str
    dataset_json: dict[str, Any]
    checkpoints: tuple[Path, ...]

    @classmethod
    def load(cls, folder: Path, folds: Sequence[str], checkpoint: str) -> "Model":
        """Read what lies beside the members.

        Args:
            folder: `TRAINER__RECIPE__CONFIGURATION`.
            folds: Fold numbers or `all`; every finished fold if empty.
            checkpoint: File name of the checkpoint in each fold.

        Raises:
            UserError: If there is no trained fold, or not the wanted ones.
        """
        found = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}"))
        finished = [fold for fold in found if (folder / f"fold_{fold}" / FINAL).exists()]
        # The network on all cases is no sixth member of an ensemble; it is used when asked for or alone.
        wanted = list(folds) or [fold for fold in finished if fold != "all"] or finished
        missing = [fold for fold in wanted if fold not in found]
        if missing:
            has = f"trained are {', '.join(found)}" if found else "no fold has been trained"
            raise UserError(f"{folder} has no trained fold {missing[0]}; {has}, use nnood_train.")
        if not wanted:
            raise UserError(
                f"{folder} has no finished fold; go on with nnood_train --continue, or name an unfinished one with -f."
            )
        plans = read_json(folder / "plans.json")
        NnoodPlan.from_dict(plans["nnood"])
        configuration = folder.name.split("__")[-1]
        files = tuple(folder / f"fold_{fold}" / checkpoint for fold in wanted)
        return cls(folder, plans, configuration, read_json(folder / "dataset.json"), files)

    @property
    def channels(self) -> int:
        """Input channels."""
        return len(self.dataset_json["channel_names"])


class ScorePredictor:
    """Turns images into score maps, one at a time."""

    def __init__(self, model: Model, device: torch.device) -> None:
        """Load all members.

        Args:
            model: Which members.
            device: Where to compute.
        """
        self._model = model
        self._plans = PlansManager(model.plans)
        self._configuration = self._plans.get_configuration(model.configuration)
        contents = [load_checkpoint(file, torch.device("cpu")) for file in model.checkpoints]
        weights: list[dict[str, Any]] = [content["network_weights"] for content in contents]
        mirror = tuple(contents[0]["mirror_axes"]) or None
        network = build_network(self._configuration, model.channels, deep_supervision=False)
        with contextlib.redirect_stdout(io.StringIO()):  # on a CPU, nnU-Net says that it is no GPU
            self._window = SlidingWindow(device=device, use_mirroring=mirror is not None, allow_tqdm=False)
        self._window.manual_initialization(
            network, self._plans, self._configuration, weights, model.dataset_json, "nnood", mirror
        )
        self._window.label_manager = OneHead.of(self._window.label_manager)

    def __call__(self, image: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Predict one image.

        Args:
            image: Values (C, Z, Y, X) as `nnood.images.read_case` gives them.
            geometry: Of the image.

        Returns:
            Score map (Z, Y, X) float32 in [0, 1], 0 outside of what the network saw. Members are averaged as logits.
        """
        data, _, properties = preprocess_image(
            image, None, geometry, self._plans, self._configuration, self._model.dataset_json
        )
        logits = self._window.predict_logits_from_preprocessed_data(torch.from_numpy(data))
        return score_map_from_logits(logits, properties, self._plans, self._configuration)
