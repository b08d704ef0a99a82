import itertools
from math import comb

import pytest

from nnood.errors import UserError
from nnood.tasks import TASKS
from nnood.training.case_folds import make_case_folds
from nnood.training.recipes import RECIPES, get_recipe
from nnood.training.schemes import SCHEMES, Fold, make_folds

CASES = [f"case_{number:02d}" for number in range(23)]
TASK_NAMES = ("poisson_inter", "poisson_intra", "sink", "source", "smooth_intensity")
CASE_FOLDS = make_case_folds("D", CASES, groups={}).folds


def assert_nothing_is_on_both_sides(folds: list[Fold]) -> None:
    for fold in folds:
        assert not set(fold.train_cases) & set(fold.val_cases)
        assert not set(fold.train_tasks) & set(fold.val_tasks)
        assert len({*fold.train_cases, *fold.val_cases}) == len(fold.train_cases) + len(fold.val_cases)


@pytest.mark.parametrize(("trained", "count"), [(1, 5), (2, 10), (3, 10), (4, 5)])
def test_paired_against_brute_force(trained: int, count: int) -> None:
    folds = make_folds(f"paired({trained})", CASE_FOLDS, TASK_NAMES)
    assert len(folds) == count == comb(5, trained)
    assert_nothing_is_on_both_sides(folds)
    # Every subset of that size, as the bits of a number; the largest lowest bits first is the order of combinations.
    subsets = [bits for bits in range(2**5) if bits.bit_count() == trained]
    subsets.sort(key=lambda bits: f"{bits:05b}"[::-1], reverse=True)
    for fold, bits in zip(folds, subsets, strict=True):
        inside = [bool(bits >> i & 1) for i in range(5)]
        cases = {case: inside[i] for i, part in enumerate(CASE_FOLDS) for case in part.val}
        assert set(fold.train_cases) == {case for case in CASES if cases[case]}
        assert set(fold.val_cases) == {case for case in CASES if not cases[case]}
        assert fold.train_tasks == tuple(task for task, trains in zip(TASK_NAMES, inside, strict=True) if trains)
        assert fold.val_tasks == tuple(task for task, trains in zip(TASK_NAMES, inside, strict=True) if not trains)


def test_paired_keeps_each_task_with_its_cases() -> None:
    first = make_folds("paired(1)", CASE_FOLDS, TASK_NAMES)
    assert [fold.train_cases for fold in first] == [fold.val for fold in CASE_FOLDS]
    assert [fold.train_tasks for fold in first] == [(task,) for task in TASK_NAMES]


def test_per_task() -> None:
    folds = make_folds("per_task", CASE_FOLDS, TASK_NAMES[:2])
    assert [(fold.train_cases, fold.val_cases) for fold in folds] == [(fold.train, fold.val) for fold in CASE_FOLDS]
    assert all(fold.train_tasks == fold.val_tasks == TASK_NAMES[:2] for fold in folds)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_single_task_against_brute_force(count: int) -> None:
    tasks = tuple(TASKS)[:count]
    folds = make_folds("single_task", CASE_FOLDS, tasks)
    assert len(folds) == 5 * count == len(set(folds))
    for case, task in itertools.product(CASES, tasks):
        mine = [fold for fold in folds if fold.train_tasks == (task,)]
        # Of the networks of a task, each case is held out of one and trains the others.
        assert len(mine) == 5
        assert [case in fold.val_cases for fold in mine].count(True) == 1
        assert all((case in fold.train_cases) != (case in fold.val_cases) for fold in mine)
    assert all(fold.val_tasks == fold.train_tasks for fold in folds)


def test_the_ten_networks_of_mood22() -> None:
    recipe = get_recipe("mood22")
    folds = make_folds(recipe.scheme, CASE_FOLDS, tuple(recipe.tasks))
    hard, smooth = folds[:5], folds[5:]
    assert [(fold.train_tasks, fold.val_tasks) for fold in hard] == [(("mood22_hard",), ("mood22_hard",))] * 5
    assert [(fold.train_tasks, fold.val_tasks) for fold in smooth] == [(("mood22_smooth",), ("mood22_smooth",))] * 5
    for half in (hard, smooth):
        assert [(fold.train_cases, fold.val_cases) for fold in half] == [(fold.train, fold.val) for fold in CASE_FOLDS]


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_leave_task_out(count: int) -> None:
    tasks = tuple(TASKS)[:count]
    folds = make_folds("leave_task_out", CASE_FOLDS, tasks)
    assert_nothing_is_on_both_sides(folds)
    assert [(fold.train_cases, fold.val_cases) for fold in folds] == [(fold.train, fold.val) for fold in CASE_FOLDS]
    assert [fold.val_tasks for fold in folds] == [(tasks[number % count],) for number in range(5)]
    assert all(set(fold.train_tasks) | set(fold.val_tasks) == set(tasks) for fold in folds)


@pytest.mark.parametrize(
    ("scheme", "tasks", "sentence"),
    [
        (
            "soup",
            5,
            r"There is no scheme 'soup'; known are per_task, single_task, leave_task_out, unseen_tasks, paired\(1\)",
        ),
        ("paired(t)", 5, "There is no scheme"),
        ("paired(0)", 5, "There is no scheme"),
        ("paired", 5, "There is no scheme"),
        ("", 5, "There is no scheme ''"),
        ("paired(5)", 5, r"paired\(5\) leaves none of 5 tasks to validate with; expected paired\(1\) to paired\(4\)"),
        ("paired(1)", 4, r"needs as many tasks as case folds, but there are 4 task\(s\) and 5 case folds"),
        ("paired(1)", 4, r"change the recipe's tasks or scheme, or .* \(nnood_cross_validation --folds N\)"),
        ("leave_task_out", 1, "leave_task_out needs 2 tasks or more, but there is 1"),
    ],
)
def test_schemes_that_do_not_exist_or_fit(scheme: str, tasks: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_folds(scheme, CASE_FOLDS, tuple(TASKS)[:tasks])


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_folds(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    assert recipe.scheme in SCHEMES
    assert set(recipe.tasks) <= set(TASKS)
    assert make_folds(recipe.scheme, CASE_FOLDS, tuple(recipe.tasks))


def test_the_recipes_of_many_tasks() -> None:
    for trained, count in enumerate((5, 10, 10, 5), start=1):
        recipe = get_recipe(f"many_tasks_{trained}of5")
        assert recipe.summary.startswith(f"{trained} of 5")
        assert recipe.tasks == dict.fromkeys(TASK_NAMES, 1.0)
        assert (recipe.normal, recipe.repeat, recipe.epochs) == (0.0, None, get_recipe("nnood").epochs)
        folds = make_folds(recipe.scheme, CASE_FOLDS, tuple(recipe.tasks))
        assert len(folds) == count
        assert all(len(fold.train_tasks) == trained for fold in folds)
