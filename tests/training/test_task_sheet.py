from pathlib import Path

import pytest
from PIL import Image

from nnood.errors import UserError
from nnood.paths import Roots
from nnood.tasks import TASKS
from nnood.training import task_sheet
from nnood.training.task_sheet import draw_tasks


def test_every_task_has_a_row(planned_once: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}

    def recorded(cases, image, foreground, planted):
        drawn.update(planted)
        return original(cases, image, foreground, planted)

    original = task_sheet._draw
    monkeypatch.setattr(task_sheet, "_draw", recorded)
    left_out = draw_tasks("999", planned_once, list(TASKS), tmp_path / "sheet.png")
    assert list(left_out) == ["lesion_shapes"]
    assert list(drawn) == [name for name in TASKS if name != "lesion_shapes"]
    assert sum(bool(result.failed.any()) for result in drawn.values()) <= 2
    with Image.open(tmp_path / "sheet.png") as picture:
        width, height = picture.size
    assert width > 1000
    assert height > 1000


def test_the_seed_decides(planned_once: Roots, tmp_path: Path) -> None:
    pictures = []
    for number, seed in enumerate((0, 0, 1)):
        draw_tasks("999", planned_once, ["sink"], tmp_path / f"{number}.png", seed=seed)
        with Image.open(tmp_path / f"{number}.png") as picture:
            pictures.append(picture.tobytes())
    assert pictures[0] == pictures[1]
    assert pictures[0] != pictures[2]


def test_damaged_cases_are_named(planned: Roots, tmp_path: Path) -> None:
    stored = next((planned.preprocessed / "Dataset999_Phantoms").glob("*/*.b2nd"))
    case = stored.name.split(".")[0].removesuffix("_seg")
    for file in stored.parent.glob("*.b2nd"):
        file.write_bytes(b"nothing")
    with pytest.raises(UserError, match=f"{case} was changed or damaged"):
        draw_tasks("999", planned, ["fpi"], tmp_path / "sheet.png")


def test_nothing_to_draw(planned_once: Roots, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to draw"):
        draw_tasks("999", planned_once, ["lesion_shapes"], tmp_path / "sheet.png")
    with pytest.raises(UserError, match="'2d'"):
        draw_tasks("999", planned_once, ["fpi"], tmp_path / "sheet.png", configuration="2d")
