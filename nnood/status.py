"""What exists of a data set, from its raw images to its inference plan, and which command comes next."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

from nnood.datasets import find_dataset_name, load_dataset
from nnood.inference.inference_plan import PLAN_FILE, load_plan
from nnood.inference.members import ALL_CASES
from nnood.paths import Roots
from nnood.plan import CASE_LIST_FILE, PLANS_FILE
from nnood.planning.plan_and_preprocess import describe_plans
from nnood.safety import read_json
from nnood.sharing.manifest import MANIFEST
from nnood.training.checkpoints import FINAL
from nnood.training.cross_validation import folds_file
from nnood.training.options import options_of
from nnood.training.progress import DONE, MISSING, RUNNING, STOPPED, fold_states, format_states
from nnood.training.recipes import DEFAULT_RECIPE, RECIPES
from nnood.training.settings import SETTINGS_FILE, TrainingSettings


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        text: What exists of it, for the user to read.
        next_step: What to do so that the stage is complete; None if it is.
    """

    text: str
    next_step: str | None = None


def find_stages(dataset: str | int, roots: Roots) -> list[Stage]:
    """Look at a data set: raw images, plan, networks, inference plan. Nothing is changed and no image is opened.

    Args:
        dataset: Id or name.
        roots: The three root folders.

    Returns:
        The stages in their order; the first one that is not complete knows the next command.

    Raises:
        UserError: If there is no such data set, or a file of it is damaged.
    """
    name = find_dataset_name(str(dataset), roots)
    results, preprocessed = roots.results / name, roots.preprocessed / name
    if (results / MANIFEST).is_file():
        return [Stage(f"Model: installed from an archive into {results}"), _inference(results)]
    return [_raw(name, roots), _planned(preprocessed), _networks(results, preprocessed), _inference(results)]


def next_step(stages: list[Stage], dataset: str) -> str:
    """What to do next, in one line.

    Args:
        stages: Of `find_stages`.
        dataset: As the user names it.
    """
    step = next((stage.next_step for stage in stages if stage.next_step), "nnood_predict -d {} -i IMAGES -o SCORES")
    return step.format(dataset)


def _raw(name: str, roots: Roots) -> Stage:
    """The user's images. Once they are preprocessed, training and prediction go on without them."""
    folder = roots.raw / name
    if not folder.is_dir():
        return Stage(f"Raw images: none in {roots.raw}")
    if not (folder / "dataset.json").is_file():
        return Stage(f"Raw images: incomplete, there is no {folder / 'dataset.json'}", "the same nnood_convert again")
    raw = load_dataset(name, roots)
    tests = folder / "imagesTs"
    files = len([file for file in tests.iterdir() if not file.name.startswith(".")]) if tests.is_dir() else 0
    return Stage(
        f"Raw images: {len(raw.training)} normal cases of {raw.channels} channel(s), {files // raw.channels} test cases"
    )


def _planned(folder: Path) -> Stage:
    """Fingerprint, plans and preprocessed cases; the plans are written when the cases are there."""
    if not (folder / PLANS_FILE).is_file():
        state = "interrupted" if folder.is_dir() else "not planned yet"
        return Stage(f"Plan: {state}", "nnood_plan_and_preprocess -d {}")
    cases = read_json(folder / CASE_LIST_FILE)
    return Stage(f"Plan: {len(cases)} cases in {folder}\n{_indented(describe_plans(folder))}")


def _networks(results: Path, preprocessed: Path) -> Stage:
    """Members of all recipes and configurations."""
    texts, finished, steps = [], 0, []
    for folder in sorted(results.glob("*__*__*")):
        if len(folder.name.split("__")) != 3:  # not one of ours
            continue
        _, recipe, configuration = folder.name.split("__")
        states = fold_states(folder, _folds(folder, folds_file(preprocessed, recipe)))
        finished += sum(state == DONE for state in states.values())
        options = ("" if recipe == DEFAULT_RECIPE else f" -r {recipe}") + f" -c {configuration}"
        for fold, state in states.items():
            if state == RUNNING:
                steps.append(f"wait for fold {fold} of {recipe}, {configuration}, which is being trained")
            elif state == STOPPED:
                steps.append(_go_on(folder / f"fold_{fold}", configuration))
        if finished == 0 and MISSING in states.values() and recipe in RECIPES:
            steps.append(f"nnood_train {{}} every{options}")
        texts.append(f"{recipe}, {configuration}\n{_indented(format_states(folder, list(states)))}")
    if not texts:
        return Stage("Networks: none trained yet", "nnood_train {} 0")
    return Stage("Networks:\n" + _indented("\n".join(texts)), steps[0] if steps else None)


def _go_on(fold: Path, configuration: str) -> str:
    """The command that goes on with a stopped run."""
    options = options_of(TrainingSettings.from_dict(read_json(fold / SETTINGS_FILE)))
    if options is None:
        log = fold.parents[1] / "nnood_train.log"
        return f"the nnood_train of {fold} again, as it was ({log} has it), with --continue"
    number = fold.name.removeprefix("fold_").split("_")[0]
    return " ".join(["nnood_train {}", number, "-c", configuration, *options, "--continue"])


def _folds(folder: Path, file: Path) -> list[str]:
    """The folds that a recipe has, and whatever else was trained, as in their folders' names."""
    planned = [str(number) for number in range(len(read_json(file)))] if file.is_file() else []
    there = [fold.name.removeprefix("fold_") for fold in sorted(folder.glob("fold_*")) if fold.is_dir()]
    return list(dict.fromkeys(planned + there))


def _inference(results: Path) -> Stage:
    """The inference plan, and whether it is newer than all finished networks."""
    file, find = results / PLAN_FILE, "nnood_find_best_configuration -d {}"
    finished = list(results.glob(f"*__*__*/fold_*/{FINAL}"))
    if not file.is_file():
        judged = any(not final.parent.name.startswith(f"fold_{ALL_CASES}") for final in finished)
        return Stage("Inference plan: none, so networks are simply averaged", find if judged else None)
    plan = load_plan(file)
    text = f"Inference plan: {file}\n{_indented(plan.describe())}"
    made = file.stat().st_mtime
    later = sum(final.stat().st_mtime > made for final in finished)
    if later:
        return Stage(f"{text}\n  {later} network(s) were finished after it was made.", find)
    return Stage(text)


def _indented(text: str) -> str:
    return textwrap.indent(text, "  ")
