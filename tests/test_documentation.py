"""The documentation keeps up with the program: commands parse, links lead somewhere, modules exist."""

import ast
import re
import runpy
import shlex
from importlib.metadata import distribution
from pathlib import Path

import pytest
import torch

import nnood.tasks
from nnood import cli
from nnood.tasks.donors import Donors

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "documentation").rglob("*.md"))]
COMMANDS = [
    (page, line.split("#")[0].strip())
    for page in PAGES
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("nnood_")
]
COMMANDS += [
    (page, line.removeprefix("srun "))
    for page in PAGES
    for line in page.read_text().splitlines()
    if line.startswith("srun nnood_")
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: getattr(value, "name", value))
def test_commands_parse(page: Path, line: str) -> None:
    name, *arguments = shlex.split(line)
    parser, _ = getattr(cli, name.removeprefix("nnood_")).build()
    parser.parse_args(arguments)


def test_there_are_commands_to_check() -> None:
    assert {"nnood_convert", "nnood_plan_and_preprocess", "nnood_train", "nnood_predict"} <= {
        line.split()[0] for _, line in COMMANDS
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def anchor(heading: str) -> str:
    """What a heading is linked by: small letters, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_headings(page: Path) -> None:
    missing = []
    for name, wanted in re.findall(r"\]\(([^):#]*)#([^)]+)\)", page.read_text()):
        text = re.sub(r"```.*?```", "", (page.parent / name if name else page).read_text(), flags=re.DOTALL)
        if wanted not in {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)}:
            missing.append(f"{name}#{wanted}")
    assert not missing


def test_the_named_commands_of_nnunet_exist() -> None:
    page = (ROOT / "documentation" / "for_nnunet_users.md").read_text()
    there = {point.name for point in distribution("nnunetv2").entry_points}
    first_column = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `nnUNetv2_")]
    named = {name for cell in first_column for name in re.findall(r"`(?:nnUNetv2)?(_\w+)", cell)}
    assert len(named) > 15
    assert not {f"nnUNetv2{name}" for name in named} - there


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "documentation" / "README.md"
    listed = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)", index.read_text())}
    assert not {page for page in PAGES[1:] if page != index} - listed


def test_the_page_of_commands_is_that_of_the_parsers() -> None:
    script = ROOT / "documentation" / "reference" / "write_commands.py"
    page = runpy.run_path(str(script))["commands_page"]()
    current = script.with_name("commands.md").read_text()
    assert current == page + "\n", f"run python {script.relative_to(ROOT)}"


def test_architecture_names_what_exists() -> None:
    text = (ROOT / "documentation" / "architecture.md").read_text()
    named = re.findall(r"`(nnood/[\w/.]+)`", text)
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


LAYERS = (
    {"cli", "demo"},
    {"sharing", "status"},
    {"inference", "evaluation", "training", "reconstruction"},
    {"planning"},
    {"tasks"},
)
UPWARDS = {("inference/array_predictor.py", "sharing")}


def imported(file: Path) -> set[str]:
    """What a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def test_arrows_run_one_way() -> None:
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    upwards = set()
    for file in sorted((ROOT / "nnood").rglob("*.py")):
        name = file.relative_to(ROOT / "nnood")
        # What is in no layer (the gate, paths, ...) is below planning, but for the public surface above all.
        own = -1 if name.name == "__init__.py" and len(name.parts) == 1 else level.get(name.parts[0].split(".")[0], 3)
        parts = {module.split(".")[1] for module in imported(file) if module.startswith("nnood.")}
        upwards |= {(name.as_posix(), part) for part in parts if part in level and level[part] < own}
    assert upwards == UPWARDS


def test_tasks_and_metrics_stand_alone() -> None:
    nnood_files = ROOT / "nnood"
    for file in (nnood_files / "tasks").rglob("*.py"):
        others = {module for module in imported(file) if module.split(".")[0] in ("nnood", "nnunetv2")}
        assert {module for module in others if not module.startswith("nnood.tasks")} == set(), file
    metrics = imported(nnood_files / "evaluation" / "metrics.py")
    assert not {module for module in metrics if module.startswith("nnood")}


@pytest.mark.parametrize("shape", [(24, 20), (16, 20, 12), (1, 24, 20)])
def test_the_guide_adds_a_task(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "documentation" / "how_to" / "add_a_task.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert 0 < sum(bool(line.strip()) for line in code.splitlines()) < 20
    # A copy, so that the name is gone from the table afterwards.
    known = nnood.tasks.TASKS
    table = dict(known)
    monkeypatch.setattr(nnood.tasks, "TASKS", table)
    exec(code, {})  # our own guide
    (name,) = table.keys() - known.keys()
    assert f"-t {name}" in page
    image = torch.randn(4, 2, *shape, generator=torch.Generator().manual_seed(0))
    donors = Donors()
    donors.begin_batch(["a", "b", "c", "d"], image)
    task = nnood.tasks.build_task(name, nnood.tasks.TaskSettings(shape, (0.3, 0.7), (0.4, 0.4)))
    foreground = torch.ones(4, *shape, dtype=torch.bool)
    result = task(image, foreground, donors, torch.Generator().manual_seed(0))
    assert not result.failed.any()
    assert result.label.flatten(1).any(dim=1).all()
    changed = (result.image != image).any(dim=1, keepdim=True)
    assert changed[result.label > 0].float().mean() > 0.9
    assert not changed.all()
