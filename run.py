"""Set up an environment of its own and run the demo or all tests: `python3 run.py demo`, `python3 run.py tests`.

Uses nothing but the standard library; everything else goes into `.venv` beside this file.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
BINARIES = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")


def set_up() -> None:
    """Install nnood with the tested versions of all it needs; does nothing if that was done before."""
    inputs = b"".join((ROOT / name).read_bytes() for name in ("setup.py", "constraints.txt"))
    fingerprint = hashlib.sha256(inputs + sys.version.encode()).hexdigest()
    stamp = ENVIRONMENT / "nnood-installed"
    if stamp.exists() and stamp.read_text() == fingerprint:
        return
    print(f"Setting up {ENVIRONMENT} (a few minutes, once) ...", flush=True)
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    pip = [str(BINARIES / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # torch first: asked for by its exact version, the build that suits the machine is found wherever pip may look.
    version = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    subprocess.run([*pip, version], check=True, cwd=ROOT)
    subprocess.run([*pip, "-c", "constraints.txt", "-e", ".[test]"], check=True, cwd=ROOT)
    stamp.write_text(fingerprint)


def run_tests() -> int:
    """Lint, formatting and type checks, then all tests."""
    checks = (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "nnood", "dataset_conversion"],
        ["pytest", "-n", "2", "--dist", "loadfile"],
    )
    codes = []
    for check in checks:
        print("$", *check, flush=True)
        # Two test processes on two cores: more threads than that only wait for each other.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [str(BINARIES / "python"), "-m", *check]
        codes.append(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)
    return max(codes)


def main() -> int:
    """Run what the command line names."""
    if sys.argv[1:] not in (["demo"], ["tests"]):
        print("usage: python3 run.py demo | tests", file=sys.stderr)
        return 2
    set_up()
    if sys.argv[1] == "tests":
        return run_tests()
    return subprocess.run([str(BINARIES / "nnood_demo")], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
