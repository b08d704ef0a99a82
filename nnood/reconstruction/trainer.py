"""nnood's trainer for autoencoders: nothing is planted in training, and whole patches are reconstructed."""

from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnood.reconstruction.losses import ReconstructionLoss
from nnood.reconstruction.measure import PatchCollector, gather_values, measure_scales
from nnood.reconstruction.network import Autoencoder
from nnood.reconstruction.patches import Preparer, knows_foreground
from nnood.reconstruction.settings import Reconstruction
from nnood.training.trainer import PRIOR_BATCHES, NnoodTrainer
from nnood.training.validation import spread_evenly

MOST_PATCHES = 1000  # whose codes outlier detectors are fitted on
SCALE_CASES = 2  # by which scores are scaled: all of them are predicted with each voxel score


class ReconstructionTrainer(NnoodTrainer):
    """Trains one autoencoder; the fold's validation tasks say which of its checkpoints is the best."""

    planter: Preparer

    def initialize(self) -> None:
        """Build everything; nothing of it is nnU-Net's deep supervision."""
        self.enable_deep_supervision = self.log.loss_tells = False
        self.values: dict[str, torch.Tensor] = {}
        self.measured_after = -1
        super().initialize()

    @property
    def reconstruction(self) -> Reconstruction:
        """The recipe's settings."""
        settings = self.settings.recipe.reconstruction
        if settings is None:
            raise TypeError(f"The recipe {self.settings.recipe.name} reconstructs nothing.")
        return settings

    def _make_planter(self) -> Preparer:
        """Nothing is planted."""
        return Preparer(
            self.reconstruction,
            self.views,
            has_foreground=knows_foreground(self.plan.foreground_method),
            device=self.device,
        )

    def _make_network(self, configuration: ConfigurationManager, channels: int) -> nn.Module:
        """The autoencoder."""
        return Autoencoder(self.reconstruction, configuration, channels)

    def _build_loss(self) -> nn.Module:
        settings = self.reconstruction
        return ReconstructionLoss(settings.error, settings.beta, settings.entropy)

    def _start(self) -> None:
        """Measure mean and spread of the foreground on a few batches."""
        self.planter.start_epoch(self._seed("intensities"))
        self._seed_step("intensities")
        network, values = self.plain_network(), []
        for _ in range(PRIOR_BATCHES):
            patches, _ = self.planter(next(self.dataloader_train))
            slabs = patches.unflatten(1, (len(network.image_mean) + 1, -1)).transpose(0, 1).flatten(1)
            values.append(slabs[:-1, slabs[-1] > 0])
        seen = torch.cat(values, 1)
        seen = seen if seen.shape[1] else torch.zeros(len(seen), 1, device=seen.device)
        mean, spread = self.team.share((seen.mean(1).cpu(), seen.std(1, correction=0).clamp(min=1e-6).cpu()))
        network.image_mean.copy_(mean)
        network.image_spread.copy_(spread)
        told = ", ".join(f"{one:.3f} +- {other:.3f}" for one, other in zip(mean, spread, strict=True))
        self.print_to_log_file(f"Foreground, per channel: {told}.")

    def _targets(self, label: torch.Tensor) -> torch.Tensor:
        """The network knows its target, which is its input."""
        return label

    def _patch_logits(self, network: nn.Module, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        return network(self.planter.patches(images, foreground))

    def _seen_case(self, image: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        return self.planter.case(image, foreground)

    def save_checkpoint(self, filename: str) -> None:
        """Write where the run is, and what is needed to predict from here: scales, and values of training patches."""
        if self.local_rank == 0 and self.measured_after != self.current_epoch:
            self._measure()
            self.measured_after = self.current_epoch
        super().save_checkpoint(filename)

    def _measure(self) -> None:
        network = self.plain_network().eval()
        training = self.dataset_class(self.preprocessed_dataset_folder, list(self.settings.fold.train_cases))
        cases = spread_evenly(training.identifiers, MOST_PATCHES)
        # In an order of their own: those that are enough for all patches shall come from everywhere.
        order = [cases[number] for number in np.random.default_rng(0).permutation(len(cases))]

        def seen(case: str) -> tuple[torch.Tensor, torch.Tensor]:
            image, inside = map(torch.from_numpy, training.load_whole(case))
            return self._seen_case(image, inside), inside

        measure_scales(network, self._window(network), map(seen, order[:SCALE_CASES]))
        collector = PatchCollector(network)
        window = self._window(collector)
        cases_seen = (seen(case)[0] for case in order)
        values = gather_values(cases_seen, lambda case: collector.of_case(window, case), most=MOST_PATCHES)
        self.values = {"codes": values.codes, "error": values.error, "elbo": values.elbo}

    def _content(self) -> dict[str, Any]:
        return {**super()._content(), "patches": self.values}
