"""nnU-Net's trainer, taught to find synthetic anomalies that are planted on the device, batch by batch."""

import contextlib
from pathlib import Path
from time import time
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
from tqdm import tqdm

from nnood.network import OneHead, build_network
from nnood.plan import NnoodPlan
from nnood.planning.storage import CaseStore
from nnood.precision import autocast_for
from nnood.safety import write_json
from nnood.training.checkpoints import BEST, FINAL, LATEST, load_checkpoint, save_checkpoint
from nnood.training.fixed_anomalies import seed_of
from nnood.training.loading import feed, normal_variation
from nnood.training.log import AnomalyLog
from nnood.training.losses import SoftBinaryCrossEntropy, downsample_label, entropy
from nnood.training.planting import Planter
from nnood.training.settings import TrainingSettings
from nnood.training.task_settings import task_settings
from nnood.training.validation import FixedPatches, TaskScores

PRIOR_BATCHES = 8


class NnoodTrainer(nnUNetTrainer):
    """Trains one member.

    Everything of nnood's comes in `plans["nnood"]`: a `NnoodPlan` and, as `training`, the `TrainingSettings`.
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
        if not self.is_ddp:
            self.device = device  # nnU-Net would take GPU 0 whichever was asked for
        self.plan = NnoodPlan.from_dict(plans["nnood"])
        self.settings = TrainingSettings.from_dict(plans["nnood"]["training"])
        recipe = self.settings.recipe
        self.num_epochs, self.num_iterations_per_epoch = recipe.epochs, recipe.iterations
        self.initial_lr, self.weight_decay = recipe.learning_rate, recipe.weight_decay
        self.label_manager = OneHead.of(self.label_manager)
        self.logger.local_logger = AnomalyLog()
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
        self.best_voxel_ap = -1.0
        self.scores = TaskScores()
        self.bar: tqdm | None = None
        self.steps_started = 0.0

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
        super().initialize()
        self.dataset_class = CaseStore

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
        fixed = FixedPatches(
            validation,
            self.settings.fold.val_tasks,
            self.task_settings,
            dataset=self.plans_manager.dataset_name,
            donors=self.settings.fold.train_cases,
            patch_size=patch_size,
            batch_size=self.batch_size,
            device=self.device,
        )
        self.num_val_iterations_per_epoch = len(fixed)
        return feed(loader, self.device), fixed.endless()

    # ---- the loop's hooks ---------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Prepare loaders; a fresh run's output starts at the log-odds of the prior."""
        if not self.was_initialized:
            self.initialize()
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        self.print_plans()
        write_json(Path(self.output_folder_base) / "dataset.json", self.dataset_json)
        if self.current_epoch == 0:
            self._start_at_prior()

    def _start_at_prior(self) -> None:
        """Set the bias of every output layer to the log-odds of the labels' mean, measured on a few batches."""
        self._seed_epoch("prior")
        labels = [self.planter(next(self.dataloader_train))[1] for _ in range(PRIOR_BATCHES)]
        prior = float(torch.stack([label.mean() for label in labels]).mean().clamp(1e-4, 0.5))
        bias = float(np.log(prior / (1 - prior)))
        self.print_to_log_file(f"Mean label: {prior:.5f}; the output's bias starts at {bias:.3f}.")
        with torch.no_grad():
            for layer in self._plain_network().decoder.seg_layers:
                layer.bias.fill_(bias)

    def _plain_network(self) -> Any:
        network = self.network.module if self.is_ddp else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    def _seed_epoch(self, *parts: str) -> None:
        """Seed everything random of an epoch, so that a resumed run goes on as if it had never stopped."""
        seed = self._seed(*parts)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.planter.start(seed)

    def on_train_epoch_start(self) -> None:
        """Seed the epoch and open its progress bar."""
        self.network.train()
        self._seed_epoch(f"epoch {self.current_epoch}")
        self.logger.log("lrs", self.optimizer.param_groups[0]["lr"], self.current_epoch)
        title = f"Epoch {self.current_epoch + 1}/{self.num_epochs}"
        self.steps_started = time()
        self.bar = tqdm(total=self.num_iterations_per_epoch, desc=title, unit="step", leave=False, disable=None)

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
        super().on_train_epoch_end(train_outputs)
        self.logger.log("failed", self.planter.failed, self.current_epoch)
        seconds = (time() - self.steps_started) / self.num_iterations_per_epoch
        self.logger.log("seconds_per_step", seconds, self.current_epoch)
        if self.bar is not None:
            self.bar.close()
        if self.logger.get_value("train_losses", -1) is None:  # how the log keeps what is not finite
            raise FloatingPointError(
                f"The training loss of epoch {self.current_epoch} is not finite; training stopped."
            )

    def on_validation_epoch_start(self) -> None:
        """Start with empty figures."""
        super().on_validation_epoch_start()
        self.scores = TaskScores()

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Loss at full resolution, and scores, of one fixed batch."""
        cuda = torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext()
        with autocast_for(self.device), cuda:
            logits = self.network(batch["data"])[0].float()
        loss = SoftBinaryCrossEntropy()(logits, batch["target"])
        self.scores.add(torch.sigmoid(logits), batch["target"], batch["tasks"])
        return {"loss": float(loss), "images": len(logits)}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Log loss, the prior's entropy and average precision per task."""
        loss = np.average([o["loss"] for o in val_outputs], weights=[o["images"] for o in val_outputs])
        voxel_ap, sample_ap = self.scores.voxel_ap(), self.scores.sample_ap()
        known = [value for value in voxel_ap.values() if np.isfinite(value)]
        self.logger.log("val_losses", loss, self.current_epoch)
        self.logger.log("prior_entropy", entropy(self.scores.prior), self.current_epoch)
        self.logger.log("voxel_ap", voxel_ap, self.current_epoch)
        self.logger.log("sample_ap", sample_ap, self.current_epoch)
        self.logger.log("mean_voxel_ap", float(np.mean(known)) if known else 0.0, self.current_epoch)

    def on_epoch_end(self) -> None:
        """Tell the figures, draw them, and write the latest and perhaps the best checkpoint."""
        self.logger.log("epoch_end_timestamps", time(), self.current_epoch)
        line = self.logger.local_logger.describe_epoch(self.num_epochs)
        self.print_to_log_file(line, also_print_to_console=True, add_timestamp=False)
        voxel_ap = self.logger.get_value("mean_voxel_ap", -1)
        if voxel_ap > self.best_voxel_ap:
            self.best_voxel_ap = voxel_ap
            self.save_checkpoint(str(Path(self.output_folder) / BEST))
        self.save_checkpoint(str(Path(self.output_folder) / LATEST))
        if self.local_rank == 0:
            self.logger.plot_progress_png(self.output_folder)
        self.current_epoch += 1

    def on_train_end(self) -> None:
        """Write the summary and the final checkpoint, and say so plainly if nothing was learned."""
        if isinstance(self.dataloader_train, NonDetMultiThreadedAugmenter):
            self.dataloader_train._finish()
        if self.local_rank == 0:
            self._write_summary()
        # Last of all: with this file the fold counts as finished.
        self.current_epoch -= 1
        self.save_checkpoint(str(Path(self.output_folder) / FINAL))
        self.current_epoch += 1
        self.print_to_log_file("Training done.")

    def _write_summary(self) -> None:
        keys = ("val_losses", "prior_entropy", "mean_voxel_ap", "voxel_ap", "sample_ap")
        write_json(
            Path(self.output_folder) / "validation" / "summary.json",
            {
                "checkpoint": FINAL,
                "best_mean_voxel_ap": self.best_voxel_ap,
                "has_learned": self.logger.local_logger.has_learned,
                **{key: self.logger.get_value(key, -1) for key in keys},
            },
        )
        if not self.logger.local_logger.has_learned:
            self.print_to_log_file(
                "The network has learned nothing yet: its loss is that of a constant prediction. Train longer "
                "(--epochs), or with larger anomalies (anomaly_size in dataset.json).",
                also_print_to_console=True,
                add_timestamp=False,
            )

    # ---- files --------------------------------------------------------------------------------------------------

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = False, add_timestamp: bool = True) -> None:
        """Write to the log file; to the console only what a user must see, above any progress bar."""
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)
        if also_print_to_console and self.local_rank == 0 and "plan" in self.__dict__:
            tqdm.write(" ".join(map(str, args)))

    def save_checkpoint(self, filename: str) -> None:
        """Write network, optimiser, schedule and log: tensors and plain values only."""
        if self.local_rank != 0:
            return
        content = {
            "network_weights": self._plain_network().state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "schedule_state": self.lr_scheduler.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "best_voxel_ap": float(self.best_voxel_ap),
            "current_epoch": self.current_epoch + 1,
            "mirror_axes": list(self.inference_allowed_mirroring_axes or ()),
        }
        save_checkpoint(content, Path(filename))

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Go on from a checkpoint file."""
        if not self.was_initialized:
            self.initialize()
        content = load_checkpoint(Path(filename_or_checkpoint), self.device)
        self._plain_network().load_state_dict(content["network_weights"])
        self.optimizer.load_state_dict(content["optimizer_state"])
        self.lr_scheduler.load_state_dict(content["schedule_state"])
        if self.grad_scaler is not None and content["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(content["grad_scaler_state"])
        self.logger.load_checkpoint(content["logging"])
        self.best_voxel_ap = content["best_voxel_ap"]
        self.current_epoch = content["current_epoch"]
