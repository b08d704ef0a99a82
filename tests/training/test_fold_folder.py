from dataclasses import replace
from pathlib import Path

import pytest

from nnood.errors import UserError
from nnood.safety import write_json
from nnood.training.checkpoints import FINAL, save_checkpoint
from nnood.training.fold_folder import where_to_start
from nnood.training.recipes import RECIPES
from nnood.training.schemes import Fold
from nnood.training.settings import SETTINGS_FILE, TrainingSettings

SETTINGS = TrainingSettings(RECIPES["fpi"], Fold(("a",), ("b",), ("fpi",), ("fpi",)), 0)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    save_checkpoint({"current_epoch": 1, "step": 0}, tmp_path / FINAL)
    write_json(tmp_path / SETTINGS_FILE, SETTINGS.to_dict())
    return tmp_path


@pytest.mark.parametrize("prose", [{"summary": "Other words."}, {"citation": ""}, {"notes": "A typing error less."}])
def test_what_people_read_of_a_recipe_may_change_under_a_run(finished: Path, prose: dict[str, str]) -> None:
    other = replace(SETTINGS, recipe=replace(SETTINGS.recipe, **prose))  # type: ignore[arg-type]
    assert other != SETTINGS
    assert where_to_start(finished, other, go_on=True).is_finished


def test_what_decides_a_training_may_not(finished: Path) -> None:
    for other in (
        replace(SETTINGS, seed=1),
        replace(SETTINGS, fold=replace(SETTINGS.fold, val_tasks=("pii",))),
        *(replace(SETTINGS, recipe=replace(SETTINGS.recipe, **change)) for change in ({"epochs": 3}, {"normal": 0.5})),
    ):
        with pytest.raises(UserError, match=r"was started with other settings"):
            where_to_start(finished, other, go_on=True)
