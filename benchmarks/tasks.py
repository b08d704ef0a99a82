"""What planting one anomaly costs, against nnU-Net's default training augmentation of the same patch, in one thread.

    pip install --no-deps pie-torch
    python benchmarks/tasks.py --rounds 200

In each round, augmentation and tasks get the same image and take turns, so that slow phases of the machine hit them
alike; all tasks plant one anomaly in a box of the same size, and over the rounds the sizes go evenly through a plan's
default fractions of the object. An anomaly's own label and the copy of the image are included. Times are heavy-tailed
(most of the augmentation's transforms are rare), so means and medians are printed; shares are those of the means.

Then Poisson blending alone against pie-torch's, if that is installed, and on a GPU, if there is one, a mixture of all
tasks against a training step of nnU-Net's default network.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import mean, median

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy import ndimage
from torch import nn

from nnood.tasks import TASKS, TaskSettings, build_mixture, build_task
from nnood.tasks.donors import Donors
from nnood.tasks.lesions import EDGE, lesion_template
from nnood.tasks.poisson import Poisson
from nnood.tasks.task import Corrupted

try:
    import pietorch
except ImportError:
    pietorch = None

SHAPES = {"256": (256, 256), "64": (64, 64, 64), "128": (128, 128, 128)}
PATCH, BOX = SHAPES["128"], 64
FRACTIONS = (0.1, 0.7)
AUGMENTATION = "nnU-Net's augmentation"
# The augmentation's mean is in every share, and it has the heaviest tail.
AUGMENTATIONS_PER_ROUND = 3
WARM_UP = 20
BATCH = 2
# What nnU-Net plans for a patch of 128^3 of isotropic voxels.
FEATURES = (32, 64, 128, 256, 320, 320)

Seconds = dict[str, list[float]]


def noise(shape: tuple[int, ...], sigma: float, seed: int) -> np.ndarray:
    """Smooth random values of mean 0 and deviation 1."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ((values - values.mean()) / values.std()).astype(np.float32)


def ball(shape: tuple[int, ...]) -> torch.Tensor:
    """The foreground: 0.9 of each edge across."""
    middle = np.reshape(shape, (-1, *[1] * len(shape))) / 2
    return torch.from_numpy((((np.indices(shape) - middle) / (0.9 * middle)) ** 2).sum(axis=0) < 1)


def lesions() -> torch.Tensor:
    """Templates of four irregular blobs."""
    masks = (noise((EDGE,) * 3, 4, seed) > 1 for seed in range(4))
    templates = [lesion_template(mask, (1.0, 1.0, 1.0)) for mask in masks]
    return torch.from_numpy(np.stack([template for template in templates if template is not None]))


def settings(shape: tuple[int, ...], fractions: tuple[float, float]) -> TaskSettings:
    """One anomaly per image."""
    extent = tuple(round(0.9 * n) for n in shape)
    return TaskSettings(extent, fractions, (0.5,), repeat=0.0, lesions=lesions())


def batch(shape: tuple[int, ...], device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor, Donors]:
    """Two cases (2, 1, *S), their foreground (2, *S), and donors that know them."""
    image = torch.from_numpy(np.stack([noise(shape, 3, seed)[None] for seed in range(BATCH)])).to(device)
    donors = Donors()
    donors.begin_batch([str(number) for number in range(BATCH)], image)
    return image, ball(shape).expand(BATCH, *shape).contiguous().to(device), donors


def timed(call: Callable[[], object], seconds: list[float]) -> object:
    """Call, and note how long it took."""
    start = time.perf_counter()
    result = call()
    seconds.append(time.perf_counter() - start)
    return result


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def milliseconds(seconds: list[float]) -> list[str]:
    """Mean and median."""
    return [f"{1e3 * mean(seconds):.2f}", f"{1e3 * median(seconds):.2f}"]


def default_augmentation(shape: tuple[int, ...]) -> Callable[..., object]:
    """What nnU-Net does to a patch of equal edges by default."""
    limit = np.deg2rad(180 if len(shape) == 2 else 30)
    return nnUNetTrainer.get_training_transforms(shape, (-limit, limit), None, tuple(range(len(shape))), False)


def against_augmentation(shape: tuple[int, ...], rounds: int) -> None:
    """Every task in the table, on one image."""
    np.random.seed(0)
    torch.manual_seed(0)
    images, foregrounds, donors = batch(shape)
    segmentation = foregrounds[0, None].to(torch.int16)
    augment = default_augmentation(shape)
    generator = torch.Generator().manual_seed(0)
    warm_up = np.linspace(*FRACTIONS, WARM_UP)
    fractions = np.concatenate([warm_up, np.random.default_rng(0).permutation(np.linspace(*FRACTIONS, rounds))])
    seconds: Seconds = {name: [] for name in (AUGMENTATION, *TASKS)}
    failures = dict.fromkeys(TASKS, 0)
    for fraction in fractions:
        known = settings(shape, (fraction, fraction))
        for _ in range(AUGMENTATIONS_PER_ROUND):
            timed(lambda: augment(image=images[0].clone(), segmentation=segmentation.clone()), seconds[AUGMENTATION])
        for name in TASKS:
            task = build_task(name, known)
            plant = lambda task=task: task(images[:1], foregrounds[:1], donors, generator)  # noqa: E731
            result = timed(plant, seconds[name])
            failures[name] += isinstance(result, Corrupted) and int(result.failed)
    kept = {name: times[len(times) * WARM_UP // len(fractions) :] for name, times in seconds.items()}
    reference = mean(kept[AUGMENTATION])
    print(f"## {' x '.join(map(str, shape))}, {rounds} rounds, boxes of {FRACTIONS[0]:.0%} to {FRACTIONS[1]:.0%}\n")
    head = ("task", "mean ms", "median ms", "share of the augmentation")
    table(head, ([name, *milliseconds(times), f"{mean(times) / reference:.3f}"] for name, times in kept.items()))
    if any(failures.values()):
        lost = ", ".join(f"{name} {count}" for name, count in failures.items() if count)
        print(f"Calls of {len(fractions)} in which nothing could be planted: {lost}.\n")


def blends(mixed: bool) -> list[tuple[str, Callable[[], object]]]:
    """Implementations of Poisson blending and calls of them, on the same box of the same image."""
    image, donor = torch.from_numpy(np.stack([noise(PATCH, 3, seed) for seed in range(2)]))
    box = (slice((PATCH[0] - BOX) // 2, (PATCH[0] + BOX) // 2),) * 3
    old, new, mask = image[box], donor[box], ball((BOX,) * 3).float()
    poisson, generator = Poisson(mixed=mixed), torch.Generator()
    own = ("nnood", lambda: poisson(old[None], new[None], mask, generator))
    if pietorch is None:
        return [own]
    # pie-torch sets the mask's faces to 0 in place; they are that already, since the ball does not reach them.
    corner = torch.zeros(3, dtype=torch.long)
    arrays = [tensor.numpy() for tensor in (old, new, mask, corner)]
    cached = pietorch.CachedPoissonBlender([(new.shape, None)])
    return [
        own,
        ("pie-torch blend", lambda: pietorch.blend(old, new, mask, corner, mixed)),
        ("pie-torch CachedPoissonBlender", lambda: cached.blend(old, new, mask, corner, mixed)),
        ("pie-torch blend_dst_numpy", lambda: pietorch.blend_dst_numpy(*arrays, mixed)),
    ]


def against_pie_torch(rounds: int) -> None:
    """Blending of the box alone, without a copy of the image."""
    print(f"## Poisson blending of a box of {BOX}^3, {rounds} rounds\n")
    if pietorch is None:
        print("pie-torch: skipped; `pip install --no-deps pie-torch` to include it.\n")
    rows: list[list[str]] = []
    for mixed in (False, True):
        calls = blends(mixed)
        seconds: Seconds = {name: [] for name, _ in calls}
        for _ in range(WARM_UP + rounds):
            for name, call in calls:
                timed(call, seconds[name])
        kept = {name: times[WARM_UP:] for name, times in seconds.items()}
        suffix = ", mixed gradients" if mixed else ""
        own = mean(kept["nnood"])
        rows += [[name + suffix, *milliseconds(times), f"{mean(times) / own:.1f}"] for name, times in kept.items()]
    table(("implementation", "mean ms", "median ms", "times nnood's"), rows)


def default_network() -> PlainConvUNet:
    """What nnU-Net plans for a patch of 128^3, with one output."""
    stages = len(FEATURES)
    return PlainConvUNet(
        input_channels=1,
        n_stages=stages,
        features_per_stage=FEATURES,
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=(1, *[2] * (stages - 1)),
        n_conv_per_stage=2,
        num_classes=1,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


def against_training(rounds: int) -> None:
    """A mixture of all tasks against forward, backward and optimizer; the loss is cheaper than any real one."""
    torch.backends.cudnn.benchmark = True
    images, foregrounds, donors = batch(PATCH, "cuda")
    mixture = build_mixture(dict.fromkeys(TASKS, 1.0), settings(PATCH, FRACTIONS))
    network = default_network().cuda()
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    scaler = torch.amp.GradScaler("cuda")
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda"):
            loss = torch.stack([output.float().square().mean() for output in network(images)]).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        torch.cuda.synchronize()

    def plant() -> None:
        mixture(images, foregrounds, donors, generator)
        torch.cuda.synchronize()

    calls: tuple[tuple[str, Callable[[], None]], ...] = (("training step", step), ("planting", plant))
    seconds: Seconds = {name: [] for name, _ in calls}
    for _ in range(WARM_UP + rounds):
        for name, call in calls:
            timed(call, seconds[name])
    kept = {name: times[WARM_UP:] for name, times in seconds.items()}
    reference = mean(kept["training step"])
    rows = ([name, *milliseconds(times), f"{mean(times) / reference:.3f}"] for name, times in kept.items())
    table(("on the GPU", "mean ms", "median ms", "share of the training step"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--edges", nargs="+", choices=SHAPES, default=list(SHAPES), help="256 is 2D, the others 3D")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for edge in arguments.edges:
        against_augmentation(SHAPES[edge], arguments.rounds)
    against_pie_torch(max(1, arguments.rounds // 2))
    print(f"## A batch of {BATCH} patches of {PATCH[0]}^3 on a GPU\n")
    if torch.cuda.is_available():
        against_training(arguments.rounds)
    else:
        print("no GPU: skipped")


if __name__ == "__main__":
    main()
