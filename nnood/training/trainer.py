"""nnU-Net's trainer, taught to find synthetic anomalies that are planted on the device, batch by batch."""

import contextlib
import io
from pathlib import Path
from time import monotonic, time
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from nnood.network import OneHead, build_network
from nnood.plan import NnoodPlan
from nnood.planning.storage import CaseStore
from nnood.precision import autocast_for
from nnood.safety import write_json
from nnood.training.checkpoints import BEST, FINAL, load_checkpoint, save_checkpoint, save_latest
from nnood.training.distributed import Team
from nnood.training.fixed_anomalies import seed_of
from nnood.training.loading import feed, normal_variation
from nnood.training.log import AnomalyLog
from nnood.training.losses import SoftBinaryCrossEntropy, downsample_label
from nnood.training.planting import Planter
from nnood.training.settings import TrainingSettings
from nnood.training.signals import Stopped, StopRequest
from nnood.training.task_settings import task_settings
from nnood.training.validation import FixedPatches, score_patches
from nnood.training.whole_cases import WholeCases, is_due, make_window, score_whole_cases

PRIOR_BATCHES = 8
SECONDS_BETWEEN_CHECKPOINTS = 600.0


class NnoodTrainer(nnUNetTrainer):
    """Trains one member.

    Everything of nnood's comes in `plans["nnood"]`: a `NnoodPlan` and, as `training`, the `TrainingSettings`.

    The state of a run is: weights, optimiser, schedule and log; `current_epoch` and `step` (how many are finished); and,
    within an epoch, what `_rank_state` says. All randomness is seeded anew for each step, so there is no other.

    Attributes:
        team: The ranks of this run, nnU-Net's constructor leaves no room for it; set before anything else is called.
        stop: Whether the run was asked to end; likewise.
        step: Number of finished steps of the current epoch.
        best: The best `AnomalyLog.figure` so far.
        is_saturated: Whether the training tasks reached the recipe's `stop_at`.
    """

    label_manager: LabelManager
    current_epoch: int

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if not self.is_ddp or device.type == "cpu":
            self.device = device  # nnU-Net would take GPU 0 whichever was asked for, and several ranks for several GPUs
            self.grad_scaler = self.grad_scaler if device.type == "cuda" else None
        self.team, self.stop = Team(), StopRequest()
        self.plan = NnoodPlan.from_dict(plans["nnood"])
        self.settings = TrainingSettings.from_dict(plans["nnood"]["training"])
        recipe = self.settings.recipe
        self.num_epochs, self.num_iterations_per_epoch = recipe.epochs, recipe.iterations
        self.initial_lr, self.weight_decay = recipe.learning_rate, recipe.weight_decay
        self.label_manager = OneHead.of(self.label_manager)
        self.log = self.logger.local_logger = AnomalyLog()
        folder = Path(self.preprocessed_dataset_folder_base)
        # Validation is the same for all recipes: it knows nothing of their labels and repetitions.
        self.task_settings = task_settings(self.plan, configuration, self.configuration_manager.spacing, folder)
        lenders = folder.parent / recipe.donors / self.configuration_manager.data_identifier
        self.planter = Planter(
            recipe,
            self.settings.fold.train_tasks,
            self.task_settings,
            lenders=CaseStore(str(lenders)) if recipe.donors else None,
            patch_size=self.configuration_manager.patch_size,
            device=self.device,
        )
        self.step = 0
        self.losses: list[float] = []
        self.best = (-1, 0.0)
        self.is_saturated = False
        self.restored: dict[str, Any] = {}
        self.bar: tqdm | None = None
        self.epoch_started = self.saved = 0.0

    # ---- set-up -------------------------------------------------------------------------------------------------

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The planned network, with one output channel."""
        return build_network(configuration_manager, num_input_channels, deep_supervision=enable_deep_supervision)

    def initialize(self) -> None:
        """Build network, optimiser and loss from the run's seed."""
        torch.manual_seed(self._seed("weights"))
    def _seed(self, *parts: str) -> int:
        return seed_of(str(self.settings.seed), str(self.fold), str(self.local_rank), *parts) % 2**32

    def _build_loss(self) -> nn.Module:
        """nnU-Net's deep supervision around a loss on soft labels."""
        wrapper = super()._build_loss()
        wrapper.loss = SoftBinaryCrossEntropy()
        if len(wrapper.weight_factors) == 1:
            wrapper.weight_factors = (
                1.0,
            )  # nnU-Net gives the coarsest output no weight, even where it is the only one
        return wrapper

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW with a one-cycle schedule, stepped every iteration."""
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.initial_lr, weight_decay=self.weight_decay)
        steps = self.num_epochs * self.num_iterations_per_epoch
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=self.initial_lr, total_steps=steps + 1)
        return optimizer, schedule

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, bool, Any, Any]:  # noqa: N802
        """nnU-Net's augmentation, with the rotation and mirroring that leave this anatomy normal."""
        _, flat, _, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        patch_size = self.configuration_manager.patch_size
        rotation, axes = normal_variation(self.plan, self.plans_manager.transpose_forward, len(patch_size))
        self.inference_allowed_mirroring_axes = axes or None
        initial = get_patch_size(patch_size, rotation, rotation, rotation, (0.85, 1.25))
        if flat:
            initial[0] = patch_size[0]
        return rotation, flat, initial, axes

    def do_split(self) -> tuple[list[str], list[str]]:
        """The fold's cases."""
        return list(self.settings.fold.train_cases), list(self.settings.fold.val_cases)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loader and augmentation for training; the fixed patches for validation."""
        patch_size = self.configuration_manager.patch_size
        rotation, flat, initial, axes = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        transforms = self.get_training_transforms(
            patch_size, rotation, None, axes, flat, use_mask_for_norm=self.configuration_manager.use_mask_for_norm
        )
        training, validation = self.get_tr_and_val_datasets()
        loader = nnUNetDataLoader(
            training,
            self.batch_size,
            initial,
            patch_size,
            self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            transforms=transforms,
        )
        fold = self.settings.fold
        fixed = FixedPatches(
            validation,
            tuple(dict.fromkeys((*fold.val_tasks, *self._followed_tasks))),
            self.task_settings,
            dataset=self.plans_manager.dataset_name,
            donors=self._donor_cases,
            patch_size=patch_size,
            batch_size=self.batch_size,
            device=self.device,
        )
        return feed(loader, self.device, self._seed("workers", str(self.current_epoch), str(self.step))), fixed

    # ---- the loop and its hooks ---------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Prepare loaders; a fresh run's output starts at the log-odds of the prior."""
        if not self.was_initialized:
            self.initialize()
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        self.print_plans()
        self.saved = monotonic()
        if self.local_rank == 0:
            write_json(Path(self.output_folder_base) / "dataset.json", self.dataset_json)
        if self.current_epoch == self.step == 0:
            self._start_at_prior()

    def _start_at_prior(self) -> None:
        """Set the bias of every output layer to the log-odds of the labels' mean, measured on a few batches."""
        self.planter.start_epoch(self._seed("prior"))
        self._seed_step("prior")
        labels = [self.planter(next(self.dataloader_train))[1].mean() for _ in range(PRIOR_BATCHES)]
        measured = self.team.gather(float(torch.stack(labels).mean()))
        prior = float(np.clip(self.team.share(np.mean(measured) if measured else 0.0), 1e-4, 0.5))
        bias = float(np.log(prior / (1 - prior)))
        self.print_to_log_file(f"Mean label: {prior:.5f}; the output's bias starts at {bias:.3f}.")
        with torch.no_grad():
            for layer in self._plain_network().decoder.seg_layers:
                layer.bias.fill_(bias)

    def _seed_step(self, *parts: str) -> None:
        """Seed everything random, so that what follows is the same whatever came before."""
        seed = self._seed(*parts)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.planter.start_step(seed)

    def on_train_epoch_start(self) -> None:
        """Open the epoch, or what is left of it, and its progress bar."""
        self.network.train()
        self.planter.start_epoch(self._seed(f"epoch {self.current_epoch}"))
        self.epoch_started = time() - self.restored.pop("seconds", 0.0)
        ranks = self.restored.pop("ranks", [])
        if self.local_rank < len(ranks):  # more ranks than before have nothing to go on from
            self.losses = list(ranks[self.local_rank]["losses"])
            self.planter.restore(ranks[self.local_rank])
        if self.step == 0:
            self.log.log("lrs", self.optimizer.param_groups[0]["lr"], self.current_epoch)
        self.bar = tqdm(
            total=self.num_iterations_per_epoch,
            initial=self.step,
            desc=f"Epoch {self.current_epoch + 1}/{self.num_epochs}",
            unit="step",
            leave=False,
            disable=True if self.local_rank else None,
        )

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One step of nnU-Net's on planted anomalies."""
        image, label = self.planter(batch)
        targets = downsample_label(label, self._output_shapes())
        with autocast_for(self.device):
            result = super().train_step({"data": image, "target": targets})
        self.lr_scheduler.step()
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix(loss=f"{float(result['loss']):.4f}", refresh=False)
        return result

    def _output_shapes(self) -> list[list[int]]:
        """Spatial shapes of the network's outputs, full resolution first."""
        patch_size = np.array(self.configuration_manager.patch_size)
        scales = self._get_deep_supervision_scales()
        return [np.round(patch_size * scale).astype(int).tolist() for scale in scales]

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Close the bar and log the loss and the anomalies that could not be planted."""
        if self.bar is not None:
            self.bar.close()
        seconds = time() - self.epoch_started
        ranks = self.team.gather((self.losses, self.planter.failed))
        losses = [loss for losses, _ in ranks for loss in losses]
        mean, failed = self.team.share((float(np.mean(losses)), sum(failed for _, failed in ranks)) if ranks else None)
        if not np.isfinite(mean):
            raise FloatingPointError(
                f"The training loss of epoch {self.current_epoch} is not finite; training stopped."
            )
        self.log.log("epoch_start_timestamps", self.epoch_started, self.current_epoch)
        self.log.log("train_losses", mean, self.current_epoch)
        self.log.log("failed", failed, self.current_epoch)
        self.log.log("seconds_per_step", seconds / self.num_iterations_per_epoch, self.current_epoch)

    def _validate_patches(self) -> None:
        """Score the fixed patches; find out whether the training tasks are learned."""
        network = self._own_network().eval()

        def predict(images: torch.Tensor) -> torch.Tensor:
            cuda = torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext()
            with autocast_for(self.device), cuda:
                return network(images)[0]

        scores = score_patches(predict, self.dataloader_val, self.stop.check)
        fold, level = self.settings.fold, self.settings.recipe.stop_at
        self.log.log_patches(scores, fold.val_tasks, self._followed_tasks, self.current_epoch)
        reached = self.log.get_value("mean_training_voxel_ap", -1)
        if level is not None and reached >= level:
            self.is_saturated = True
            text = f"The training tasks reached a voxel AP of {reached:.3f} (stop_at {level:g}); training ends."
            self.print_to_log_file(text, also_print_to_console=True, add_timestamp=False)

    def _validate_whole_cases(self) -> None:
        """Score whole cases, in the epochs that have them."""
        is_last = self.is_saturated or self.current_epoch + 1 == self.num_epochs
        scores = None
        if is_due(self.settings.recipe, self.current_epoch, last=is_last):
            self.save_latest()
            self.set_deep_supervision_enabled(False)
            try:
                window = make_window(self, self._plain_network())
                scores = score_whole_cases(window, self._whole_cases(), self.stop.check)
            finally:
                self.set_deep_supervision_enabled(self.enable_deep_supervision)
        self.log.log_whole(scores, self.settings.fold.val_tasks, self.current_epoch)

    def on_epoch_end(self) -> None:
        """Tell the figures, draw them, and write the latest and perhaps the best checkpoint."""
        epoch, self.current_epoch, self.step, self.losses = self.current_epoch, self.current_epoch + 1, 0, []
        if self.local_rank != 0:
            return
        self.log.log("epoch_end_timestamps", time(), epoch)
        line = self.log.describe_epoch(self.num_epochs)
        self.print_to_log_file(line, also_print_to_console=True, add_timestamp=False)
        if self.log.figure > self.best:
            self.best = self.log.figure
            self.save_checkpoint(str(Path(self.output_folder) / BEST))
        self.save_latest()
        self.log.plot_progress_png(self.output_folder)

    def on_train_end(self) -> None:
        """Write the summary and the final checkpoint, and say so plainly if nothing was learned."""
        self._shut_down()
        if self.local_rank == 0:
            self._write_summary()
        # Last of all: with this file the fold counts as finished.
        self.save_checkpoint(str(Path(self.output_folder) / FINAL))
        self.print_to_log_file("Training done.")

    def _shut_down(self) -> None:
        """End the loader's processes, if there are any."""
        if isinstance(self.dataloader_train, NonDetMultiThreadedAugmenter):
            self.dataloader_train._finish()

    def _write_summary(self) -> None:
        kind, value = self.best
        best = {"best_figure": ("mean_voxel_ap", "mean_whole_voxel_ap")[kind], "best": value}
        content = {"checkpoint": FINAL, "epochs": self.current_epoch, **best, **self.log.summary()}
        write_json(Path(self.output_folder) / "validation" / "summary.json", content)
        if not self.log.has_learned:
            self.print_to_log_file(
                "The network has learned nothing yet: its loss is that of a constant prediction. Train longer "
                "(--epochs), or with larger anomalies (anomaly_size in dataset.json).",
                also_print_to_console=True,
                add_timestamp=False,
            )

