"""The documentation keeps up with the program: commands parse, links lead somewhere, modules exist."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from nnood import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "documentation").rglob("*.md"))]
COMMANDS = [
    (page, line.split("#")[0].strip())
    for page in PAGES
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("nnood_")
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: getattr(value, "name", value))
def test_commands_parse(page: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(cli, "_execute", lambda parser, run: parser.parse_args())
    getattr(cli, words[0].removeprefix("nnood_"))()


def test_there_are_commands_to_check() -> None:
    assert {"nnood_convert", "nnood_plan_and_preprocess", "nnood_train", "nnood_predict"} <= {
        line.split()[0] for _, line in COMMANDS
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_architecture_names_what_exists() -> None:
    text = (ROOT / "documentation" / "architecture.md").read_text()
    named = re.findall(r"`(nnood/[\w/.]+)`", text)
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]
