"""What holds for every recipe that there is."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from nnood.tasks import TaskSettings
from nnood.training.case_folds import make_case_folds
from nnood.training.losses import LOSSES
from nnood.training.optimisation import OPTIMISERS, SCHEDULES
from nnood.training.planting import Planter, recipe_settings
from nnood.training.recipe import Recipe, check_name
from nnood.training.recipes import DEFAULT_RECIPE, RECIPES
from nnood.training.schemes import make_folds
from nnood.views import View

STEPS = 40
NNOOD22 = ("fpi", "cutpaste", "pii", "nsa", "nsa_mixed")
CPU = torch.device("cpu")


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPES[request.param]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plant(recipe: Recipe, images: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Images before and after, labels, and how many anomalies could not be planted."""
    settings = TaskSettings(shape, (0.2, 0.6), (0.5, 0.5))
    choices: Any = {"lenders": None, "patch_size": shape, "views": (View(),), "device": CPU}
    planter = Planter(recipe, list(recipe.tasks), settings, **choices)
    planter.start_epoch(0)
    planter.start_step(1)
    before = random(images, 2, *shape)
    keys = [f"case_{number}" for number in range(images)]
    after, label = planter({"data": before, "target": torch.ones(images, 1, *shape), "keys": keys, "view": 0})
    return before, after, label, planter.failed


def test_a_recipe_survives_its_file(recipe: Recipe) -> None:
    content = recipe.to_dict()
    assert json.loads(json.dumps(content)) == content
    assert Recipe.from_dict(content) == recipe


def test_names(recipe: Recipe) -> None:
    assert RECIPES[recipe.name] is recipe
    check_name(recipe.name)


def test_who_published_it_and_what_it_is(recipe: Recipe) -> None:
    assert recipe.summary.endswith(".")
    assert bool(recipe.citation) == (recipe.name != DEFAULT_RECIPE)


@pytest.mark.parametrize("shape", [(24, 20), (12, 20, 16)])
def test_its_tasks_can_be_planted(recipe: Recipe, shape: tuple[int, ...]) -> None:
    before, after, label, _ = plant(recipe, 12, shape)
    assert after.shape == before.shape
    assert label.shape == (12, 1, *shape)
    assert 0 <= label.min() < label.max() <= 1
    changed = (after != before).flatten(1).any(dim=1)
    labelled = (label > 0).flatten(1).any(dim=1)
    assert changed[labelled].all()
    assert labelled.sum() > len(before) / 2
    if recipe.label == "binary":
        assert set(label.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("tasks", [{"cutout": 1.0}, {"smooth_intensity": 5.0, "cutout": 2.0, "sink": 1.0}], ids=len)
@pytest.mark.parametrize("normal", [0.0, 0.1, 0.6])
def test_the_share_of_normal_images_is_of_all_whatever_the_tasks(tasks: dict[str, float], normal: float) -> None:
    images = 1000
    recipe = replace(RECIPES[DEFAULT_RECIPE], tasks=tasks, normal=normal, label="binary")
    before, after, _, failed = plant(recipe, images, (16, 16))
    untouched = int((after == before).flatten(1).all(dim=1).sum())
    spread = 4.5 * math.sqrt(images * normal * (1 - normal))
    assert normal * images - spread <= untouched <= normal * images + spread + failed


@pytest.mark.parametrize(
    ("planned", "wanted", "expected"),
    [
        ((0.1, 0.7), None, (0.1, 0.7)),
        ((0.1, 0.7), (0.14, 0.39), (0.14, 0.39)),
        ((0.1, 0.3), (0.1, 0.5), (0.1, 0.5)),
        ((0.2, 0.7), (0.1, 0.4), (0.2, 0.4)),
        ((0.5, 0.7), (0.1, 0.4), (0.5, 0.5)),
    ],
)
def test_sizes_of_a_recipe_replace_planned_ones_but_are_never_smaller(planned, wanted, expected) -> None:
    recipe = replace(RECIPES[DEFAULT_RECIPE], sizes=wanted)
    settings = recipe_settings(TaskSettings((30, 30), planned, (0.5,)), recipe)
    assert settings.fractions == expected


def rates(recipe: Recipe, steps: int) -> Iterator[float]:
    """The learning rate of each training step, and the one after the last."""
    optimiser = OPTIMISERS[recipe.optimiser]([nn.Parameter(torch.zeros(1))], recipe.learning_rate, 0.0)
    schedule = SCHEDULES[recipe.schedule](optimiser, recipe.learning_rate, steps)
    for _ in range(steps):
        yield optimiser.param_groups[0]["lr"]
        optimiser.step()
        schedule.step()
    yield optimiser.param_groups[0]["lr"]


def cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def one_cycle(peak: float, step: int, steps: int) -> float:
    """Smith & Topin 2018 with cosines: from 1/25 of the peak up to it in 3/10 of all steps, then down to 1/250,000."""
    top = 0.3 * (steps + 1) - 1
    if step <= top:
        return cosine(peak / 25, peak, step / top)
    return cosine(peak, peak / 25 / 1e4, (step - top) / (steps - top))


FORMS = {
    "constant": lambda peak, step, steps: peak,
    "polynomial": lambda peak, step, steps: peak * (1 - step / steps) ** 0.9,
    "one_cycle": one_cycle,
}


def test_the_forms_of_all_schedules_are_tried() -> None:
    assert FORMS.keys() == SCHEDULES.keys() == {recipe.schedule for recipe in RECIPES.values()}


@pytest.mark.parametrize("steps", [1, 7, 99])
def test_its_learning_rate_follows_the_named_form_and_stays_below_its_peak(recipe: Recipe, steps: int) -> None:
    found = list(rates(recipe, steps))
    assert max(found) <= recipe.learning_rate * (1 + 1e-9)
    assert min(found) >= 0
    if steps > 1:
        expected = [FORMS[recipe.schedule](recipe.learning_rate, step, steps) for step in range(steps + 1)]
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_one_cycle_reaches_its_peak_at_three_tenths() -> None:
    found = list(rates(RECIPES[DEFAULT_RECIPE], 99))
    assert found.index(max(found)) == 29
    assert max(found) == pytest.approx(RECIPES[DEFAULT_RECIPE].learning_rate)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_it_learns_a_tiny_problem(recipe: Recipe, batch_dice: bool) -> None:
    image = random(4, 1, 12, 12, seed=1)
    label = (image > 0.5).float()
    torch.manual_seed(0)
    network = nn.Conv2d(1, 1, 1)
    loss = LOSSES[recipe.loss](batch_dice, False)
    optimiser = OPTIMISERS[recipe.optimiser](network.parameters(), recipe.learning_rate, recipe.weight_decay)
    schedule = SCHEDULES[recipe.schedule](optimiser, recipe.learning_rate, STEPS)
    losses = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        losses.append(loss(network(image), label))
        losses[-1].backward()
        optimiser.step()
        schedule.step()
    found = [value.item() for value in losses]
    assert all(later < earlier for earlier, later in pairwise(found[:6]))
    assert found[-1] < found[0]


def test_its_folds_are_made_for_ten_cases(recipe: Recipe) -> None:
    cases = [f"case_{number}" for number in range(10)]
    folds = make_folds(recipe.scheme, make_case_folds("D", cases, groups={}).folds, tuple(recipe.tasks))
    for fold in folds:
        assert not set(fold.train_cases) & set(fold.val_cases)
        assert fold.train_cases
        assert fold.val_cases
    learned = set(recipe.tasks) if recipe.reconstruction is None else set()
    assert {task for fold in folds for task in fold.train_tasks} == learned
    assert {task for fold in folds for task in fold.val_tasks} == set(recipe.tasks)
    assert {case for fold in folds for case in fold.val_cases} == set(cases)


def test_the_default_recipe_knows_nothing_of_what_methods_are_compared_on() -> None:
    assert not RECIPES[DEFAULT_RECIPE].tasks.keys() & {"lesion_shapes", "cutpaste", "poisson_intra"}


@pytest.mark.parametrize("name", NNOOD22)
def test_the_protocol_of_nnood_2022(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.tasks.keys() == {name}
    assert (recipe.scheme, recipe.stop_at, recipe.normal) == ("per_task", 0.875, 0.0)
    assert "UNSURE 2022" in recipe.citation


def test_only_that_protocol_stops_early() -> None:
    assert {name for name, recipe in RECIPES.items() if recipe.stop_at is not None} == set(NNOOD22)
