"""nnU-Net's trainer, taught to find synthetic anomalies that are planted on the device, batch by batch."""

import contextlib
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn
from tqdm import tqdm

from nnood.inference.sliding_window import SlidingWindow, make_window
from nnood.network import OneHead, build_network
from nnood.plan import NnoodPlan
from nnood.planning.storage import CaseStore
from nnood.precision import autocast_for
from nnood.safety import write_json
from nnood.training.checkpoints import FINAL
from nnood.training.fixed_anomalies import seed_of
from nnood.training.held_out import HeldOut
from nnood.training.loading import AlternatingLoader, feed, normal_variation
from nnood.training.losses import LOSSES, downsample_label
from nnood.training.offline import OFFLINE_FOLDER, OfflineCases, OfflinePlanter, describe_planted
from nnood.training.optimisation import OPTIMISERS, SCHEDULES
from nnood.training.planting import Planter
from nnood.training.pretrained import read_encoder, take_encoder
from nnood.training.resumable import ResumableTrainer
from nnood.training.settings import TrainingSettings
from nnood.training.signals import Stopped
from nnood.training.slice_blur import FEWEST_SLICES, blur_within_slices
from nnood.training.task_settings import task_settings
from nnood.training.turned import seen_from
from nnood.training.validation import score_patches
from nnood.training.whole_cases import is_due, score_whole_cases
from nnood.views import View, stored_as, views_of

PRIOR_BATCHES = 8


class NnoodTrainer(ResumableTrainer):
    """Trains one member.

    Everything of nnood's comes in `plans["nnood"]`: a `NnoodPlan` and, as `training`, the `TrainingSettings`.
    """

    label_manager: LabelManager

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.plan = NnoodPlan.from_dict(plans["nnood"])
        self.settings = TrainingSettings.from_dict(plans["nnood"]["training"])
        recipe = self.settings.recipe
        self.num_epochs, self.num_iterations_per_epoch = recipe.epochs, recipe.iterations
        self.initial_lr, self.weight_decay = recipe.learning_rate, recipe.weight_decay
        self.oversample_foreground_percent = recipe.foreground_share
        self.label_manager = OneHead.of(self.label_manager)
        self.views = views_of(self.configuration_manager)
        folder = Path(self.preprocessed_dataset_folder_base)
        # Validation is the same for all recipes: it knows nothing of their labels and repetitions.
        self.task_settings = task_settings(self.plan, configuration, self.configuration_manager.spacing, folder)
        lenders = folder.parent / recipe.donors / self.configuration_manager.data_identifier
        self.lenders = CaseStore(str(lenders)) if recipe.donors else None
        self.is_offline = recipe.planting == "offline"
        self.is_augmented = recipe.augmentation != "none"
        self.planter = self._make_planter()
        self.pretrained: Path | None = None
        self.bar: tqdm | None = None

    def _make_planter(self) -> Any:
        """What turns batches of the loader into what the network sees and what it must say."""
        if self.is_offline:
            return OfflinePlanter(self.device, self.views)
        return Planter(
            self.settings.recipe,
            self.settings.fold.train_tasks,
            self.task_settings,
            lenders=self.lenders,
            patch_size=self.configuration_manager.patch_size,
            views=self.views,
            device=self.device,
        )

    # ---- set-up -------------------------------------------------------------------------------------------------

    def build_network_architecture(
        self,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The recipe's network, whatever nnU-Net asks for."""
        return self._make_network(configuration_manager, num_input_channels)

    def _make_network(self, configuration: ConfigurationManager, channels: int) -> nn.Module:
        """The planned network, with one output channel."""
        return build_network(configuration, channels, deep_supervision=self.enable_deep_supervision)

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
        wrapper.loss = LOSSES[self.settings.recipe.loss](self.configuration_manager.batch_dice, self.is_ddp)
        if len(wrapper.weight_factors) == 1:
            wrapper.weight_factors = (1.0,)  # nnU-Net gives the coarsest output none, even where it is the only one
        return wrapper

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """The recipe's, the schedule stepped every iteration."""
        recipe = self.settings.recipe
        optimiser = OPTIMISERS[recipe.optimiser](self.network.parameters(), self.initial_lr, self.weight_decay)
        steps = self.num_epochs * self.num_iterations_per_epoch
        return optimiser, SCHEDULES[recipe.schedule](optimiser, self.initial_lr, steps)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, bool, Any, Any]:  # noqa: N802
        """nnU-Net's augmentation, with the rotation and mirroring that leave this anatomy normal."""
        _, flat, _, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        flat = flat or self.views[0].slices > 0
        patch_size = self.configuration_manager.patch_size
        rotation, axes = normal_variation(self.plan, self.plans_manager.transpose_forward, len(patch_size))
        if not self.is_augmented:
            axes = ()  # to a network that never saw a mirrored image, all of one is unusual
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
        training, validation = self.get_tr_and_val_datasets()
        if self.is_offline:
            training = self._plant_beforehand(training)
        variation = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        loader = AlternatingLoader([self._make_loader(training, view, *variation) for view in self.views])
        self.held_out = HeldOut(
            store=validation,
            training=self.settings,
            settings=self.task_settings,
            dataset=self.plans_manager.dataset_name,
            patch_size=self.configuration_manager.patch_size,
            batch_size=self.batch_size,
            first_spacing=self._first_spacing(),
            views=self.views,
            device=self.device,
        )
        seed = self._seed("workers", str(self.current_epoch), str(self.step))
        return feed(loader, self.device, seed), self.held_out.patches()

    def _first_spacing(self) -> float:
        """Of the stored cases' first axis, in mm."""
        return float(self.plans_manager.plans["original_median_spacing_after_transp"][0])

    def _plant_beforehand(self, training: CaseStore) -> CaseStore:
        """Corrupted copies of the training cases, made by all ranks together where they are not there yet."""
        cases = OfflineCases(
            store=training,
            recipe=self.settings.recipe,
            tasks=self.settings.fold.train_tasks,
            settings=self.task_settings,
            first_spacing=self._first_spacing(),
            patch_size=self.plans_manager.get_configuration(stored_as(self.configuration_name)).patch_size,
            seed=self.settings.seed,
            folder=Path(self.output_folder) / OFFLINE_FOLDER,
            lenders=self.lenders,
        )
        own, planted = training.identifiers[self.local_rank :: self.team.size], {}
        with contextlib.suppress(Stopped):
            planted = cases.plant(own, self.stop.check, silent=self.local_rank > 0)
        if self.team.any([len(planted) < len(own)])[0]:
            raise Stopped("asked to end while anomalies were planted; --continue goes on there.")
        everywhere = self.team.gather(planted)
        if everywhere:
            told = {case: one for part in everywhere for case, one in part.items()}
            self.print_to_log_file(describe_planted(told), also_print_to_console=True, add_timestamp=False)
        return cases.planted_store()

    def _make_loader(
        self, cases: CaseStore, view: View, rotation: Any, flat: bool, initial: Any, axes: Any
    ) -> nnUNetDataLoader:
        """nnU-Net's loader of cases as a view sees them; slabs reach beyond the border like patches of the window."""
        configuration = self.configuration_manager
        if not self.is_augmented:
            initial, transforms = configuration.patch_size, self.get_validation_transforms(None)
        else:
            transforms = self.get_training_transforms(
                configuration.patch_size,
                rotation,
                None,
                view.seen_axes(axes),
                flat,
                use_mask_for_norm=configuration.use_mask_for_norm,
            )
            if flat and (view.slices > 0 or configuration.patch_size[0] < FEWEST_SLICES):
                transforms = blur_within_slices(transforms)
        return nnUNetDataLoader(
            seen_from(cases, view),
            self.batch_size,
            initial,
            configuration.patch_size,
            self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            pad_sides=(2 * view.beyond, 0, 0) if view.slices else None,
            transforms=transforms,
        )

    # ---- the loop's hooks ---------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Prepare loaders; a fresh run's output starts at the log-odds of the prior."""
        if not self.was_initialized:
            self.initialize()
        if self.pretrained is not None and self.current_epoch == self.step == 0:
            self._take_encoder(self.pretrained)
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        self.print_plans()
        if self.local_rank == 0:
            write_json(Path(self.output_folder_base) / "dataset.json", self.dataset_json)
        # Stock nnU-Net, which anomalies planted beforehand are for, starts anywhere.
        if self.current_epoch == self.step == 0 and not self.is_offline:
            self._start()

    def _take_encoder(self, file: Path) -> None:
        """Start with the encoder of another network."""
        weights = read_encoder(file, self.settings.pretrained)
        taken = take_encoder(self.plain_network(), weights, file)
        self.print_to_log_file(taken.describe(file), also_print_to_console=True, add_timestamp=False)

    def _start(self) -> None:
        """What is measured on batches before the first step."""
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
            for layer in self.plain_network().decoder.seg_layers:
                layer.bias.fill_(bias)

    def on_step_start(self) -> None:
        """Seed everything random from epoch and step."""
        self._seed_step(f"epoch {self.current_epoch}", f"step {self.step}")

    def rank_state(self) -> dict[str, Any]:
        """Losses, and the planter's state."""
        return {**super().rank_state(), **self.planter.state()}

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
        ranks, self.restored_ranks = self.restored_ranks, []
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
        targets = self._targets(label)
        with autocast_for(self.device):
            result = super().train_step({"data": image, "target": targets})
        self.lr_scheduler.step()
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix(loss=f"{float(result['loss']):.4f}", refresh=False)
        return result

    def _targets(self, label: torch.Tensor) -> Any:
        """What the network must say, at each of its resolutions."""
        return downsample_label(label, self._output_shapes(), hard=self.is_offline)

    def _output_shapes(self) -> list[list[int]]:
        """Spatial shapes of the network's outputs, full resolution first."""
        scales = self._get_deep_supervision_scales()
        patch_size = np.array(self.configuration_manager.patch_size)[-len(scales[0]) :]  # of a slab, the slices
        return [np.round(patch_size * scale).astype(int).tolist() for scale in scales]

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Close the bar and log the loss and the anomalies that could not be planted."""
        seconds = time() - self.epoch_started
        ranks = self.team.gather((self.losses, self.planter.failed))
        losses = [loss for losses, _ in ranks for loss in losses]
        mean, failed = self.team.share((float(np.mean(losses)), sum(failed for _, failed in ranks)) if ranks else None)
        if not np.isfinite(mean):
            raise FloatingPointError(
                f"The training loss of epoch {self.current_epoch} is not finite; training stopped."
            )
        if self.bar is not None:
            self.bar.close()
        self.log.log("train_losses", mean, self.current_epoch)
        self.log.log("failed", failed, self.current_epoch)
        self.log.log("seconds_per_step", seconds / self.num_iterations_per_epoch, self.current_epoch)

    def validate(self) -> bool:
        """On patches; on whole cases too, in the epochs that have them. Done if patches say that all is learned."""
        is_saturated = self._validate_patches()
        is_last = is_saturated or self.current_epoch + 1 == self.num_epochs
        self._validate_whole_cases(is_last=is_last)
        return is_saturated

    def _validate_patches(self) -> bool:
        """Score the fixed patches; returns whether the training tasks are learned."""
        network = self.own_network().eval()

        def predict(images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
            cuda = torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext()
            with autocast_for(self.device), cuda:
                return self._patch_logits(network, images, foreground)

        scores = score_patches(predict, self.dataloader_val, self.stop.check)
        level = self.settings.recipe.stop_at
        self.log.log_patches(scores, self.held_out.tasks, self.held_out.followed, self.current_epoch)
        reached = self.log.get_value("mean_training_voxel_ap", -1)
        if level is None or reached < level:
            return False
        text = f"The training tasks reached a voxel AP of {reached:.3f} (stop_at {level:g}): training ends here."
        self.print_to_log_file(text, also_print_to_console=True, add_timestamp=False)
        return True

    def _patch_logits(self, network: nn.Module, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1, *S) of images (B, C, *S) with their foreground (B, *S)."""
        return network(images)[0]

    def _validate_whole_cases(self, *, is_last: bool) -> None:
        """Score whole cases, in the epochs that have them."""
        scores = None
        if is_due(self.settings.recipe, self.current_epoch, last=is_last):
            self.save_latest()
            self.set_deep_supervision_enabled(False)
            try:
                window = self._window(self.plain_network(), self.inference_allowed_mirroring_axes)

                def predict(image: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
                    return window.predict_sliding_window_return_logits(self._seen_case(image, foreground))

                scores = score_whole_cases(predict, self.held_out.whole_cases(), self.stop.check)
            finally:
                self.set_deep_supervision_enabled(self.enable_deep_supervision)
        self.log.log_whole(scores, self.held_out.tasks, self.current_epoch)

    def _seen_case(self, image: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        """A whole case as the sliding window takes it, from its values (C, Z, Y, X) and its foreground (Z, Y, X)."""
        return image

    def _window(self, network: nn.Module, mirror_axes: tuple[int, ...] | None = None) -> SlidingWindow:
        """nnU-Net's sliding window around a network that puts out the full resolution only."""
        planned = self.plans_manager, self.configuration_manager, self.dataset_json
        return make_window(network, *planned, self.device, mirror_axes)

    def on_epoch_end(self) -> None:
        """Tell the figures and draw them."""
        if self.local_rank != 0:
            return
        self.log.log("epoch_end_timestamps", time(), self.current_epoch)
        line = self.log.describe_epoch(self.num_epochs)
        self.print_to_log_file(line, also_print_to_console=True, add_timestamp=False)
        self.log.plot_progress_png(self.output_folder)

    def on_train_end(self) -> None:
        """Write the summary and the final checkpoint, and say so plainly if nothing was learned."""
        self.shut_down()
        if self.local_rank == 0:
            self._write_summary()
        # Last of all: with this file the fold counts as finished.
        self.save_checkpoint(str(Path(self.output_folder) / FINAL))
        self.print_to_log_file("Training done.")

    def shut_down(self) -> None:
        """End the loader's processes and the progress bar, if there are any."""
        super().shut_down()
        if self.bar is not None:
            self.bar.close()

    def _write_summary(self) -> None:
        kind, value = self.best
        best = {"best_figure": ("mean_voxel_ap", "mean_whole_voxel_ap")[kind], "best": value}
        content = {"checkpoint": FINAL, "epochs": self.current_epoch, **best, **self.log.summary()}
        write_json(Path(self.output_folder) / "validation" / "summary.json", content)
        if not self.log.has_learned:
            self.print_to_log_file(
                "The network has learned nothing yet: it tells anomalies hardly better than chance. Train longer "
                "(--epochs), or with larger anomalies (anomaly_size in dataset.json).",
                also_print_to_console=True,
                add_timestamp=False,
            )
