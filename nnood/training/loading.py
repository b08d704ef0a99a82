"""How images reach the training: which variation is normal for them, who prepares them, and single patches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnood.plan import NnoodPlan
from nnood.planning.storage import CaseStore
from nnood.training.turned import TurnedStore, seen_from
from nnood.views import View


def normal_variation(
    plan: NnoodPlan, transpose_forward: Sequence[int], dimensions: int
) -> tuple[tuple[float, float], tuple[int, ...]]:
    """Rotation and mirroring that leave this anatomy normal.

    Args:
        plan: What was planned; its axes are those of the image file.
        transpose_forward: nnU-Net's order of those axes in stored cases.
        dimensions: Of the configuration's patches; 2 leaves the first stored axis out.

    Returns:
        Smallest and largest rotation in radians, and the stored axes that may be mirrored.
    """
    limit = float(np.deg2rad(plan.rotation_degrees))
    stored = [list(transpose_forward).index(axis) - (3 - dimensions) for axis in plan.mirror_axes]
    return (-limit, limit), tuple(sorted(axis for axis in stored if axis >= 0))


class AlternatingLoader:
    """Batches of one of several loaders each, drawn anew for each batch; they say which one, as `view`."""

    def __init__(self, loaders: Sequence[nnUNetDataLoader]) -> None:
        """Take turns.

        Args:
            loaders: One per view, in their order.
        """
        self._loaders = list(loaders)

    def set_thread_id(self, thread_id: int) -> None:
        """Tell the loaders in which worker they are."""
        for loader in self._loaders:
            loader.set_thread_id(thread_id)

    def __iter__(self) -> "AlternatingLoader":
        return self

    def __next__(self) -> dict[str, Any]:
        number = int(np.random.randint(len(self._loaders))) if len(self._loaders) > 1 else 0
        return {**next(self._loaders[number]), "view": number}


def feed(loader: AlternatingLoader, device: torch.device, seed: int) -> Any:
    """Worker processes beside a GPU; this process on a CPU, where others would only compete with the network.

    Args:
        loader: Makes the batches.
        device: Where the network computes.
        seed: Of the worker processes, each with its own randomness; without them, whoever asks for batches seeds.
    """
    workers = get_allowed_n_proc_DA() if device.type != "cpu" else 0
    if workers == 0:
        return SingleThreadedAugmenter(loader, None)
    return NonDetMultiThreadedAugmenter(
        loader,
        None,
        workers,
        num_cached=max(6, workers // 2),
        seeds=[(seed + number) % 2**32 for number in range(workers)],
        pin_memory=device.type == "cuda",
        wait_time=0.002,
    )


def box_around(middle: Sequence[int] | np.ndarray, size: Sequence[int], shape: Sequence[int]) -> list[list[int]]:
    """A box of a given size, half-open, around a voxel: moved into the image where it fits, else around the image.

    Args:
        middle: The voxel.
        size: Of the box.
        shape: Of the image.
    """
    starts = [
        int(np.clip(m - n // 2, 0, total - n)) if total >= n else -((n - total) // 2)
        for m, n, total in zip(middle, size, shape, strict=True)
    ]
    return [[start, start + n] for start, n in zip(starts, size, strict=True)]


def load_patch(
    store: CaseStore | TurnedStore,
    case: str,
    patch_size: Sequence[int],
    generator: np.random.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One patch of a stored case, padded with zeros beyond the image.

    Args:
        store: Where the case lies.
        case: Its name.
        patch_size: Two or three axes.
        generator: Chooses a foreground voxel as the patch's middle; if None, it is the middle of the foreground.

    Returns:
        Image (C, *S) float32 and foreground (*S) boolean.
    """
    data, segmentation, _, properties = store.load_case(case)
    locations = properties["class_locations"][1][:, 1:]
    shape = data.shape[1:]
    if not len(locations):
        middle = np.array(shape) // 2
    elif generator is None:
        middle = np.median(locations, axis=0).astype(int)
    else:
        middle = locations[generator.integers(len(locations))]
    size = (1,) * (3 - len(patch_size)) + tuple(patch_size)
    box = box_around(middle, size, shape)
    image = torch.from_numpy(crop_and_pad_nd(data, box, 0)).float()
    mask = torch.from_numpy(crop_and_pad_nd(segmentation, box, -1)[0] == 1)
    return (image[:, 0], mask[0]) if len(patch_size) == 2 else (image, mask)


def load_seen(
    store: CaseStore, case: str, patch_size: Sequence[int], view: View, generator: np.random.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`load_patch` from some side, as the network sees it.

    Args:
        store: Where the case lies.
        case: Its name.
        patch_size: Of the configuration.
        view: From where to look.
        generator: As for `load_patch`.

    Returns:
        Image (C, *S) float32 and foreground (*S) boolean; of a slab, its slices as channels and the middle one's.
    """
    image, mask = load_patch(seen_from(store, view), case, patch_size, generator)
    return view.fold(image), view.middle(mask)
