"""The planned network with one output channel: the same for training and prediction."""

from typing import Any

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnood.views import network_channels


class OneHead(LabelManager):
    """nnU-Net's label manager for {background, foreground} data whose network puts out one score per voxel."""

    @classmethod
    def of(cls, labels: LabelManager) -> "OneHead":
        """The same labels, one head."""
        return cls(labels.label_dict, None)

    @property
    def num_segmentation_heads(self) -> int:
        """One."""
        return 1


def build_network(
    configuration: ConfigurationManager, channels: int, *, deep_supervision: bool, outputs: int = 1
) -> nn.Module:
    """Build the network that nnU-Net planned.

    Args:
        configuration: nnU-Net's configuration.
        channels: Of the images.
        deep_supervision: Whether all resolutions are put out, as a list, or the full one only.
        outputs: Channels of what is put out.
    """
    kwargs: dict[str, Any] = configuration.network_arch_init_kwargs
    return get_network_from_plans(
        configuration.network_arch_class_name,
        kwargs,
        configuration.network_arch_init_kwargs_req_import,
        network_channels(configuration, channels),
        outputs,
        allow_init=True,
        deep_supervision=deep_supervision,
    )
