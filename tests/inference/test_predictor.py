import dataclasses
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from nnood.geometry import Geometry
from nnood.images import read_case
from nnood.inference import predictor as module
from nnood.inference.export import map_back
from nnood.inference.members import Member, find_members
from nnood.inference.predictor import MapPredictor
from nnood.network import build_network
from nnood.paths import Roots
from nnood.phantoms import make_phantom
from nnood.planning.preprocessor import preprocess_image
from nnood.training.checkpoints import load_checkpoint

NAME = "Dataset101_Members"  # of `trained_once`
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def members(trained_once: Roots) -> list[Member]:
    """Two of 3d_fullres and one of 2d."""
    return [
        member
        for configuration in ("3d_fullres", "2d")
        for member in find_members(trained_once, dataset=NAME, recipe="nnood", configuration=configuration)
    ]


@pytest.fixture(scope="module")
def image(trained_once: Roots) -> tuple[np.ndarray, Geometry]:
    """On a grid that is not the networks'."""
    rng = np.random.default_rng(9)
    shape = (20, 21, 26)
    return make_phantom(rng, shape)[None].astype(np.float32), Geometry.from_spacing(shape, (0.9, 1.3, 0.8))


@pytest.fixture(scope="module")
def maps(members: list[Member], image: tuple[np.ndarray, Geometry]) -> dict[int, np.ndarray]:
    return dict(MapPredictor(members, CPU).maps(*image))


def test_one_map_per_member_in_the_geometry_of_the_image(maps: dict[int, np.ndarray]) -> None:
    assert sorted(maps) == [0, 1, 2]
    for score_map in maps.values():
        assert (score_map.shape, score_map.dtype) == ((20, 21, 26), np.float32)
        assert 0 <= score_map.min() < score_map.max() <= 1
    assert np.abs(maps[0] - maps[1]).max() > 1e-4


def test_the_mean_is_that_of_the_maps(
    members: list[Member], image: tuple[np.ndarray, Geometry], maps: dict[int, np.ndarray]
) -> None:
    predictor = MapPredictor(members, CPU)
    for chosen in (None, [0, 1], [2], [2, 0]):
        numbers = [0, 1, 2] if chosen is None else chosen
        expected = np.mean([maps[number] for number in numbers], axis=0)
        np.testing.assert_allclose(predictor.mean(*image, chosen), expected, rtol=0, atol=1e-6)


def test_chosen_members_only_and_none_depends_on_the_others(
    members: list[Member], image: tuple[np.ndarray, Geometry], maps: dict[int, np.ndarray]
) -> None:
    predictor = MapPredictor(members, CPU)
    for chosen in ([1], [2, 0]):
        some = dict(predictor.maps(*image, chosen))
        assert sorted(some) == sorted(chosen)
        for number, score_map in some.items():
            np.testing.assert_array_equal(score_map, maps[number])


def test_an_image_within_one_patch_is_the_network_applied_once(members: list[Member], trained_once: Roots) -> None:
    """The sliding window, mirroring and weights against the bare network on the bare preprocessed image."""
    member = members[0]
    files = [trained_once.raw / NAME / "imagesTr" / "phantom_000_0000.nii.gz"]
    image, geometry = read_case(files, 1)
    plans = module.PlansManager(member.plans)
    configuration = plans.get_configuration("3d_fullres")
    data, _, properties = preprocess_image(image, None, geometry, plans, configuration, member.dataset_json)
    content = load_checkpoint(member.file, CPU)
    network = build_network(configuration, 1, deep_supervision=False)
    network.load_state_dict(content["network_weights"])
    padding = [n - m for n, m in zip(configuration.patch_size, data.shape[1:], strict=True)]
    assert min(padding) >= 0
    before = [n // 2 for n in padding]
    around = [(0, 0), *((n, m - n) for n, m in zip(before, padding, strict=True))]
    whole = torch.from_numpy(np.pad(data, around))[None]
    with torch.inference_mode():
        scores = torch.sigmoid(network.eval()(whole))[0]
    inside = tuple(slice(n, n + m) for n, m in zip(before, data.shape[1:], strict=True))
    expected = map_back(scores[(slice(None), *inside)], properties, plans, configuration)
    np.testing.assert_allclose(dict(MapPredictor(members, CPU).maps(image, geometry))[0], expected, atol=0.01)


def test_the_image_is_preprocessed_once_per_configuration(
    members: list[Member], image: tuple[np.ndarray, Geometry], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counting(*arguments: object) -> object:
        calls.append(str(arguments[4]))
        return preprocess_image(*arguments)

    monkeypatch.setattr(module, "preprocess_image", counting)
    predictor = MapPredictor([members[2], members[0], members[2], members[1]], CPU)
    assert len(list(predictor.maps(*image))) == 4
    assert len(calls) == 2
    predictor.mean(*image)
    assert len(calls) == 4


def test_each_member_mirrors_as_its_checkpoint_says(
    members: list[Member], image: tuple[np.ndarray, Geometry], maps: dict[int, np.ndarray], monkeypatch, tmp_path
) -> None:
    """Mirroring the image mirrors the map of a member that mirrors, and of no other."""
    load, axes = module.load_checkpoint, iter([(0, 1, 2), ()])
    monkeypatch.setattr(module, "load_checkpoint", lambda *some: {**load(*some), "mirror_axes": next(axes)})
    copied = shutil.copytree(members[0].file.parent, tmp_path / "fold") / members[0].file.name
    predictor = MapPredictor([members[0], dataclasses.replace(members[0], file=copied)], CPU)
    values, geometry = image
    upright = dict(predictor.maps(values, geometry))
    turned = dict(predictor.maps(values[:, :, ::-1].copy(), geometry))
    np.testing.assert_allclose(turned[0][:, ::-1], upright[0], atol=0.01)
    np.testing.assert_array_equal(upright[1], maps[0])
    assert np.abs(upright[0] - upright[1]).max() > np.abs(turned[0][:, ::-1] - upright[0]).max()


def test_maps_come_one_after_the_other(members: list[Member], image: tuple[np.ndarray, Geometry]) -> None:
    maps = MapPredictor(members, CPU).maps(*image)
    assert isinstance(maps, Iterator)
    assert next(iter(maps))[0] == 0
