"""Score maps of all judged images by all who may judge them."""

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from nnood.inference.members import Member
from nnood.inference.postprocessing import spacing_of
from nnood.inference.predictor import MapPredictor
from nnood.inference.selection.cache import Cache, JudgedImage
from nnood.inference.selection.images import Image, ImageMaker
from nnood.inference.selection.patch_scoring import numbers_of_networks
from nnood.planning.foreground import COMPUTED_METHODS, foreground_mask
from nnood.training.validation import NORMAL


def predict_images(
    members: Sequence[Member],
    maker: ImageMaker,
    images: Sequence[Image],
    cache: Cache,
    method: str,
    device: torch.device,
) -> None:
    """Predict every image by all members that may judge it; those that were predicted before are left out."""
    predictor, autoencoders = None, sorted(numbers_of_networks(members))
    for image in tqdm(images, desc="Predicting held-out cases", unit="image", disable=None):
        missing, lacking = cache.missing(image), cache.missing_patches(image, autoencoders)
        if not missing and not lacking:
            continue
        values, geometry, truth, foreground = maker(image.case, image.task)
        if method in COMPUTED_METHODS:
            foreground = foreground_mask(values, method)
        cache.write_image(image, JudgedImage(truth, foreground, spacing_of(geometry)))
        if image.task != NORMAL and not truth.any():
            continue  # nothing to find
        predictor = predictor or MapPredictor(members, device)
        for member, scores in predictor.maps(values, geometry, missing):
            cache.write_map(image, member, scores)
        for member, known in predictor.patch_values(values, geometry, lacking):
            cache.write_patches(image, member, known)


def with_something_to_find(cache: Cache, images: Sequence[Image]) -> tuple[Image, ...]:
    """The images without those in which their task could plant nothing."""
    return tuple(image for image in images if image.task == NORMAL or cache.read_image(image).truth.any())


def typical_edge(cache: Cache, images: Sequence[Image]) -> float:
    """Typical edge of a voxel: the geometric mean over axes and clean images."""
    edges = []
    for image in images:
        if image.task == NORMAL:
            judged = cache.read_image(image)
            edges.append(
                np.mean(np.log([mm for mm, n in zip(judged.spacing, judged.truth.shape, strict=True) if n > 1]))
            )
    return float(np.exp(np.mean(edges)))
