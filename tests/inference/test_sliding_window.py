import contextlib
import io

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnood.inference import sliding_window
from nnood.inference.members import Member, find_members
from nnood.inference.sliding_window import SlidingWindow
from nnood.network import OneHead, build_network
from nnood.paths import Roots
from nnood.training.checkpoints import load_checkpoint

NAME = "Dataset101_Members"  # of `trained_once`
CPU = torch.device("cpu")


def window(kind: type[nnUNetPredictor], member: Member, mirror: tuple[int, ...] | None) -> nnUNetPredictor:
    """A predictor of one member."""
    plans = PlansManager(member.plans)
    configuration = plans.get_configuration(member.configuration)
    network = build_network(configuration, member.channels, deep_supervision=False)
    weights = load_checkpoint(member.file, CPU)["network_weights"]
    with contextlib.redirect_stdout(io.StringIO()):
        made = kind(device=CPU, use_mirroring=mirror is not None, allow_tqdm=False)
    made.manual_initialization(network, plans, configuration, [weights], member.dataset_json, "nnood", mirror)
    made.label_manager = OneHead.of(made.label_manager)
    return made


def tile_by_tile(made: SlidingWindow, data: torch.Tensor) -> np.ndarray:
    """The definition, in float64: nnU-Net's tiles one by one, averaged with its Gaussian weights."""
    patch_size = made.configuration_manager.patch_size
    padded, inside = pad_nd_image(data, patch_size, "constant", {"value": 0}, True, None)
    made.network.eval()
    weight = compute_gaussian(tuple(patch_size), 1 / 8, 10, torch.float64, CPU).numpy()
    total, weights = np.zeros(padded.shape), np.zeros(padded.shape)
    for where in made._internal_get_sliding_window_slicers(padded.shape[1:]):
        with torch.no_grad():
            total[where] += made.network(padded[where][None])[0].double().numpy() * weight
        weights[where] += weight
    return (total / weights)[(slice(None), *inside[1:])]


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("shape", [(18, 40, 35), (3, 9, 50), (70, 61, 20)])
def test_it_averages_nnunets_tiles(
    trained_once: Roots, configuration: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sliding_window, "autocast_for", lambda device: contextlib.nullcontext())
    (member, *_) = find_members(trained_once, dataset=NAME, recipe="nnood", configuration=configuration)
    data = torch.from_numpy(np.random.default_rng(3).normal(size=(1, *shape)).astype(np.float32))
    made = window(SlidingWindow, member, None)
    found = made.predict_logits_from_preprocessed_data(data).numpy()
    expected = tile_by_tile(made, data)
    assert found.shape == (1, *shape)
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("mirror", [None, (0,), (0, 1)])
def test_it_mirrors_as_nnunets_own(trained_once: Roots, mirror: tuple[int, ...] | None) -> None:
    (member, *_) = find_members(trained_once, dataset=NAME, recipe="nnood", configuration="2d")
    data = torch.from_numpy(np.random.default_rng(4).normal(size=(1, 9, 24, 30)).astype(np.float32))
    ours, theirs = (
        window(kind, member, mirror).predict_logits_from_preprocessed_data(data).float()
        for kind in (SlidingWindow, nnUNetPredictor)
    )
    # nnU-Net adds up in half precision; ours multiplies in bfloat16 where the CPU can.
    assert float((ours - theirs).abs().mean()) < 0.05 * float(theirs.std())


def test_tiles_go_in_batches_of_the_trainings_size(trained_once: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    (member, *_) = find_members(trained_once, dataset=NAME, recipe="nnood", configuration="2d")
    made = window(SlidingWindow, member, None)
    size = made.configuration_manager.batch_size
    seen: list[int] = []
    predict = made._internal_maybe_mirror_and_predict

    def spy(tiles: torch.Tensor) -> torch.Tensor:
        seen.append(len(tiles))
        return predict(tiles)

    monkeypatch.setattr(made, "_internal_maybe_mirror_and_predict", spy)
    slices = 2 * size + 1
    patch_size = made.configuration_manager.patch_size
    made.predict_logits_from_preprocessed_data(torch.randn(1, slices, *patch_size))
    assert seen == [size, size, 1]
