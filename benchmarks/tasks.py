"""What planting one anomaly costs, against nnU-Net's default training augmentation of the same patch, in one thread.

    python benchmarks/tasks.py --calls 60

Times are heavy-tailed, so both the mean and the median of all calls are printed; the ratio is that of the means. An
anomaly's own label and the copy of the image are included.
"""

import argparse
import time
from collections.abc import Callable
from statistics import mean, median

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy import ndimage

from nnood.tasks import TASKS, TaskSettings, build_task
from nnood.tasks.donors import Donors

SHAPES = ((256, 256), (64, 64, 64), (128, 128, 128))


def blob(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth random image (1, *S) of mean 0 and deviation 1, and a ball of foreground (*S)."""
    values = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 3)
    middle = np.reshape(shape, (-1, *[1] * len(shape))) / 2
    foreground = (((np.indices(shape) - middle) / (0.45 * middle * 2)) ** 2).sum(axis=0) < 1
    image = torch.from_numpy(((values - values.mean()) / values.std()).astype(np.float32))
    return image[None], torch.from_numpy(foreground)


def measure(call: Callable[[], object], calls: int) -> tuple[float, float]:
    """Mean and median of the seconds of many calls, after three that do not count."""
    seconds = []
    for number in range(calls + 3):
        start = time.perf_counter()
        call()
        if number >= 3:
            seconds.append(time.perf_counter() - start)
    return mean(seconds), median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=60)
    calls = parser.parse_args().calls
    torch.set_num_threads(1)
    for shape in SHAPES:
        image, foreground = blob(shape)
        segmentation = foreground[None].to(torch.int16)
        limit = np.deg2rad(30)
        augment = nnUNetTrainer.get_training_transforms(shape, (-limit, limit), None, None, False)
        np.random.seed(0)
        torch.manual_seed(0)

        def run_augmentation(augment=augment, image=image, segmentation=segmentation) -> object:
            return augment(image=image.clone(), segmentation=segmentation.clone())

        reference = measure(run_augmentation, calls)
        print(f"{shape}: nnU-Net's augmentation {1e3 * reference[0]:.1f} ms (median {1e3 * reference[1]:.1f})")
        settings = TaskSettings(tuple(round(0.9 * n) for n in shape), (0.1, 0.7), (0.5,))
        donors = Donors()
        donors.begin_batch(["a", "b"], torch.stack([image, image.flip(1)]))
        for name in TASKS:
            task, generator = build_task(name, settings), torch.Generator().manual_seed(0)

            def plant(task=task, generator=generator, image=image, foreground=foreground, donors=donors) -> object:
                return task(image[None], foreground[None], donors, generator)

            average, middle = measure(plant, calls)
            print(
                f"  {name:20} {1e3 * average:6.2f} ms (median {1e3 * middle:.2f}), {average / reference[0]:.3f} of it"
            )


if __name__ == "__main__":
    main()
