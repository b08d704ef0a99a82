"""What is measured on whole cases after training: scales of scores, and values of patches."""

from collections.abc import Iterator

import pytest
import torch

from nnood.reconstruction.measure import LEAST_FOREGROUND, PatchCollector, gather_values, measure_scales
from nnood.reconstruction.network import Autoencoder, PatchValues, Seen
from nnood.reconstruction.settings import VOXEL_SCORES, Reconstruction

SHAPE = (8, 9)


class Scored(Autoencoder):
    """Scores are the patch itself, times 10 to the power of `exponent`; what is known of a patch is its mean."""

    def __init__(self, exponent: float = 0.0) -> None:
        torch.nn.Module.__init__(self)
        self.settings, self.voxel_score = Reconstruction(), "absolute"
        self.exponent = exponent
        self.register_buffer("scales", torch.full((len(VOXEL_SCORES),), 7.0))

    def see(self, patch: torch.Tensor) -> Seen:
        return Seen(patch[:, :1], patch[:, 1:], patch[:, 1:])

    def score(self, seen: Seen, kind: str) -> torch.Tensor:
        return seen.image * 10**self.exponent * (1 + VOXEL_SCORES.index(kind))

    def values(self, seen: Seen) -> PatchValues:
        mean, share = seen.image.flatten(1).mean(1), seen.foreground.flatten(1).mean(1)
        return PatchValues(mean[:, None], mean, 2 * mean, share)


class Window:
    """Stands in for nnU-Net's sliding window: patches of one slice each, four at a time."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def predict_sliding_window_return_logits(self, case: torch.Tensor) -> torch.Tensor:
        slices = case.transpose(0, 1)
        return torch.cat([self.network(part) for part in slices.split(4)]).transpose(0, 1)


def cases(*, outside: float = 1e9) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Three of 6, 7 and 8 slices, with their foreground; what lies outside of it must not matter."""
    generator, made = torch.Generator().manual_seed(0), []
    for number in range(3):
        shape = (6 + number, *SHAPE)
        values = (torch.randn(shape, generator=generator) + number).exp()
        inside = torch.rand(shape, generator=generator) < 0.3
        made.append((torch.stack([torch.where(inside, values, outside), inside.float()]), inside))
    return made


@pytest.mark.parametrize("exponent", [-9, -3, 0, 3, 9])
def test_scales_are_medians_over_the_foreground_whatever_their_magnitude(exponent: int) -> None:
    """Of several cases, the geometric mean of their medians: 1, e and e squared here, about."""
    network = Scored(exponent).eval()
    measure_scales(network, Window(network), iter(cases()))  # type: ignore[arg-type]
    medians = [case[0][inside].median().log() for case, inside in cases()]
    expected = torch.stack(medians).mean().exp() * 10.0**exponent
    for number, name in enumerate(VOXEL_SCORES):
        if name in network.settings.voxel_scores:
            assert network.scales[number].item() == pytest.approx(expected.item() * (1 + number), rel=1e-3), name
        else:
            assert network.scales[number] == 1
    assert network.voxel_score == "absolute"


def test_after_measuring_half_of_a_normal_case_is_above_one_half() -> None:
    network = Scored(-8).eval()
    (case, inside), *_ = cases()
    measure_scales(network, Window(network), [(case, inside)])  # type: ignore[arg-type]
    for name in network.settings.voxel_scores:
        network.voxel_score = name
        scores = torch.sigmoid(Window(network).predict_sliding_window_return_logits(case)[0][inside])
        assert scores.median().item() == pytest.approx(0.5, abs=1e-3), name
        assert scores.std() > 0.1, name


def test_scales_without_any_foreground_or_score_are_numbers() -> None:
    network = Scored().eval()
    case, inside = cases()[0]
    nothing = torch.stack([case[0], torch.zeros_like(case[0])])
    measure_scales(network, Window(network), [(nothing, inside & False)])  # type: ignore[arg-type]
    assert torch.isfinite(network.scales).all()
    assert (network.scales > 0).all()
    logits = Window(network).predict_sliding_window_return_logits(case)
    assert torch.isfinite(logits).all()


def test_patches_with_some_foreground_speak_for_a_case() -> None:
    network = Scored()
    collector = PatchCollector(network)
    case = torch.zeros(2, 6, 10, 20)
    case[0] = torch.arange(6.0).view(6, 1, 1)
    case[1, 1] = 1
    case[1, 3].view(-1)[: round(200 * LEAST_FOREGROUND)] = 1
    case[1, 4].view(-1)[: round(200 * LEAST_FOREGROUND) - 1] = 1
    found = collector.of_case(Window(collector), case)  # type: ignore[arg-type]
    assert found.error.tolist() == [1, 3]
    assert found.elbo.tolist() == [2, 6]
    assert found.codes.tolist() == [[1], [3]]
    assert found.share.tolist() == pytest.approx([1, LEAST_FOREGROUND])
    case[1] = 0
    again = collector.of_case(Window(collector), case)  # type: ignore[arg-type]
    assert again.error.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (100, [0, 1, 2, 10, 11, 12, 20, 21, 22]),
        (9, [0, 1, 2, 10, 11, 12, 20, 21, 22]),
        (6, [0, 1, 2, 10, 11, 12]),
        (4, [0, 2, 10, 12]),
        (3, [0, 1, 2]),
        (2, [0, 2]),
        (1, [0]),
    ],
)
def test_patches_are_thinned_out_evenly_and_no_more_cases_are_read_than_needed(
    most: int, expected: list[float]
) -> None:
    read = []

    def loaded() -> Iterator[torch.Tensor]:
        for number in range(3):
            read.append(number)
            yield torch.tensor([0.0, 1.0, 2.0]) + 10 * number

    def of_case(case: torch.Tensor) -> PatchValues:
        return PatchValues(case[:, None].expand(3, 5), case, case + 0.5, torch.ones(3))

    found = gather_values(loaded(), of_case, most=most)
    assert found.error.tolist() == expected
    assert torch.equal(found.codes, found.error[:, None].expand(-1, 5))
    assert torch.equal(found.elbo, found.error + 0.5)
    assert len(read) == min(3, -(-most // 3))
