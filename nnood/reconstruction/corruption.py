"""What is done to images that are to be restored: parts masked, or noise added."""

from collections.abc import Callable

import torch
from torch.nn.functional import interpolate

# Source: Zimmerer et al. 2018, "Context-encoding variational autoencoder for unsupervised anomaly detection": random
# squares; their number and size, up to a quarter of an edge, are of the authors' code.
MOST_SQUARES = 3
LARGEST_SQUARE = 0.25
# Source: Kascenas, Pugeault, O'Neil 2022, "Denoising autoencoders for unsupervised anomaly detection in brain MRI":
# noise on a grid of 16 x 16 for images of 128 x 128. Its strength there, 0.2 of images scaled to [0, 1], is about the
# spread of a brain's intensities.
COARSE = 8
NOISE = 1.0


def mask_squares(image: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """Set one to three random squares (cubes) of each image to the foreground's mean, which is 0.

    Args:
        image: (B, C, *S) in standard deviations of the foreground.
        foreground: (B, 1, *S); not regarded.

    Returns:
        A changed copy. Draws come from torch's global generator, which the trainer seeds for each step.
    """
    changed = image.clone()
    shape = torch.tensor(image.shape[2:])
    for one in changed:
        for _ in range(int(torch.randint(1, MOST_SQUARES + 1, ()))):
            edge = (shape * LARGEST_SQUARE * torch.rand(())).long().clamp(min=1)
            start = ((shape - edge + 1) * torch.rand(len(shape))).long()
            part = tuple(slice(int(a), int(a + n)) for a, n in zip(start, edge, strict=True))
            one[(slice(None), *part)] = 0
    return changed


def add_coarse_noise(image: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """Add smooth noise to the foreground: independent values on a coarse grid that lies anywhere, interpolated.

    Args:
        image: (B, C, *S) in standard deviations of the foreground.
        foreground: (B, 1, *S), 1 inside.

    Returns:
        A changed copy. Draws come from torch's global generator, which the trainer seeds for each step.
    """
    shape = image.shape[2:]
    cells = [-(-edge // COARSE) + 1 for edge in shape]
    drawn = torch.randn(*image.shape[:2], *cells, device=image.device) * NOISE
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    fine = interpolate(drawn, [n * COARSE for n in cells], mode=mode)
    for axis, (edge, n) in enumerate(zip(shape, cells, strict=True), start=2):
        start = int(torch.randint(0, n * COARSE - edge + 1, ()))
        fine = fine.narrow(axis, start, edge)
    return image + fine * foreground


# From images and their foreground to what the encoder is shown.
CORRUPT: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "squares": mask_squares,
    "coarse_noise": add_coarse_noise,
}
