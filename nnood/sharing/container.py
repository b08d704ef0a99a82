"""The folder that the MOOD challenge's container is built from: models, nnood itself, pinned packages, scripts."""

import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nnood
from nnood.errors import UserError
from nnood.inference.finishing import refuse_users_masks
from nnood.inference.predict import Planned, find_model
from nnood.paths import Roots
from nnood.sharing.archive import open_archive
from nnood.sharing.checks import load_model
from nnood.sharing.exporting import ENDING, export_model
from nnood.sharing.mood import KINDS
from nnood.sharing.workshop import flush_all, workshop

REGIONS = {"brain": "brain MRI", "abdom": "abdominal CT"}
WHAT = dict(zip(KINDS, ("score maps", "sample scores"), strict=True))
# The challenge runs these with `sh`. Whatever is written besides the scores goes to a folder that is removed: the
# container is read-only but for /tmp or, failing that, /dev/shm, and its user may have no home and no name.
SCRIPT = """#!/bin/sh
# MOOD challenge, {region}: {what} of the images in a folder. Usage: sh {name} IN OUT
here=$(cd "$(dirname "$0")" && pwd) || exit 1
scratch=$(mktemp -d 2>/dev/null || mktemp -d /dev/shm/nnood.XXXXXX) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
export HOME="$scratch" TMPDIR="$scratch" XDG_CACHE_HOME="$scratch" MPLCONFIGDIR="$scratch" NUMBA_CACHE_DIR="$scratch"
export TORCH_HOME="$scratch" TORCHINDUCTOR_CACHE_DIR="$scratch" TRITON_CACHE_DIR="$scratch" CUDA_CACHE_DISABLE=1
export USER=nnood PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$here"
python -P -c 'from nnood.sharing.mood import main; main()' {kind} "$here/models/{folder}" "$1" "$2"
"""
DOCKERFILE = """# Build: docker build -t nnood_mood .
# Run: docker run --gpus all --network none --read-only --tmpfs /tmp:size=64m \\
#   -v IN:/mnt/data:ro -v OUT:/mnt/pred nnood_mood sh /workspace/{script} /mnt/data /mnt/pred
FROM python:{python}-slim
WORKDIR /workspace
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY nnood nnood
COPY models models
COPY run_*.sh ./
RUN chmod -R a+rX /workspace && python -m compileall -q nnood
"""


def export_mood(folder: Path, models: Mapping[str, str], roots: Roots) -> list[str]:
    """Write everything that `docker build` needs, besides the packages that it fetches.

    Args:
        folder: To be made; appears when it is complete.
        models: Per region of `REGIONS`, the id or name of a data set or the file of an archive.
        roots: The three root folders.

    Returns:
        The names of the entry scripts.

    Raises:
        UserError: If the folder exists, no model is named, a model does not exist or wants several channels, or nnood
            is not installed as a package.
    """
    if not models:
        raise UserError("Name a model with --brain, with --abdom, or with both.")
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another name, or remove it.")
    with workshop(folder.absolute().parent, "container") as place:
        new = place / folder.name
        new.mkdir()
        planned = [_add_model(models[region], new / "models" / region, place, roots) for region in models]
        shutil.copytree(
            Path(nnood.__file__).parent, new / "nnood", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
        needs_latent = any(one.plan.sample_patches is not None for one in planned)
        pinned = pinned_requirements("nnood[latent]" if needs_latent else "nnood")
        (new / "requirements.txt").write_text("".join(f"{line}\n" for line in pinned), encoding="utf-8")
        scripts = [_add_script(new, kind, region) for region in models for kind in KINDS]
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        text = DOCKERFILE.format(python=python, script=scripts[0])
        (new / "Dockerfile").write_text(text, encoding="utf-8")
        flush_all(new)
        new.rename(folder)
    return scripts


def pinned_requirements(package: str) -> list[str]:
    """A package's requirements and theirs, in the versions that are installed here, without the package itself.

    What is not installed here is for other platforms. Versions of special builds (`2.8.0+cpu`) lose what is special.

    Args:
        package: Its name, with extras or not.

    Raises:
        UserError: If the package is not installed.
    """
    versions: dict[str, str] = {}
    waiting, seen = [Requirement(package)], set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, *sorted(wanted.extras)) in seen:
            continue
        seen.add((name, *sorted(wanted.extras)))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        versions[name] = found.version.split("+")[0]
        waiting += [one for one in map(Requirement, found.requires or ()) if _applies(one, wanted)]
    own = canonicalize_name(Requirement(package).name)
    if own not in versions:
        raise UserError(f"{own} is not installed as a package, so what it needs is not known; install it with pip.")
    return [f"{name}=={version}" for name, version in sorted(versions.items()) if name != own]


def _applies(requirement: Requirement, by: Requirement) -> bool:
    """Whether a requirement counts on this platform and with the extras that are asked for."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *by.extras))


def _add_model(model: str, target: Path, place: Path, roots: Roots) -> Planned:
    """Unpack an archive, or what would be in one of a data set's model."""
    file = Path(model)
    if file.suffix != ENDING:
        file = place / f"model{ENDING}"
        export_model(find_model(roots, dataset=model), roots, file)
    with open_archive(file) as archive:
        planned = load_model(archive.unpack(target), Path(model))
    if planned.channels != 1:
        raise UserError(f"The model {model} wants {planned.channels} channels, but the challenge's images have one.")
    refuse_users_masks(planned.plan, planned.foreground_method)
    return planned


def _add_script(folder: Path, kind: str, region: str) -> str:
    """Write an entry script, and return its name."""
    name = f"run_{kind}_{region}.sh"
    text = SCRIPT.format(region=REGIONS[region], what=WHAT[kind], name=name, kind=kind, folder=region)
    (folder / name).write_text(text, encoding="utf-8")
    (folder / name).chmod(0o755)
    return name
