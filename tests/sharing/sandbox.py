"""A command as the MOOD challenge's container runs it, without Docker: read-only, without network, not as root."""

import os
import shutil
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

STRANGER = 65534
UNSHARE = ("unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--mount-proc")
# In namespaces of its own: everything is read-only but $OUT, a /tmp and a /dev/shm of 64 MB. What python needs below a
# folder that is closed to others is laid bare there, since a container has it in the open.
SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/workspace /mnt/data /mnt/pred /mnt/python
mount --bind "$FOLDER" /mnt/workspace
mount -o remount,bind,ro /mnt/workspace
mount --bind "$IN" /mnt/data
mount -o remount,bind,ro /mnt/data
mount --bind "$OUT" /mnt/pred
if [ -n "$CLOSED" ]; then
    mount --bind "$PYTHON" /mnt/python
    mount -t tmpfs -o mode=755 tmpfs "$CLOSED"
    mkdir -p "$PYTHON"
    mount --bind /mnt/python "$PYTHON"
fi
mount -t tmpfs -o size=64m,mode=1777 tmpfs /dev/shm
mount -t tmpfs -o size=64m,mode=1777 tmpfs /tmp
mount -o remount,bind,ro /
mount -o remount,ro /mnt
cd /mnt/workspace
exec setpriv --reuid=$STRANGER --regid=$STRANGER --clear-groups --no-new-privs --inh-caps=-all \\
    env -i PATH="$PATH" HOME=/root OMP_NUM_THREADS=1 "$@"
"""


def run(folder: Path, images: Path, output: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a container's folder (`/mnt/workspace`), with `/mnt/data` and `/mnt/pred`."""
    python = Path(sys.base_prefix).resolve()
    own = {"FOLDER": str(folder), "IN": str(images), "OUT": str(output), "STRANGER": str(STRANGER)}
    closed = _closed(python)
    own |= {"CLOSED": str(closed or ""), "PYTHON": str(python), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    output.mkdir(exist_ok=True)
    os.chown(output, STRANGER, STRANGER)
    words = [*UNSHARE, "sh", "-c", SCRIPT, "sh", *command]
    return subprocess.run(words, env=os.environ | own, capture_output=True, text=True)


def skip_without() -> None:
    """Skip the test where this machine can't or may not do such a thing."""
    reason = _reason()
    if reason:
        pytest.skip(reason)


@cache
def _reason() -> str:
    if os.name != "posix" or any(shutil.which(name) is None for name in ("unshare", "setpriv")):
        return "there is no unshare or no setpriv"
    if os.getuid() != 0 or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        return "namespaces are not permitted"
    if _closed(Path(sys.prefix).resolve()):
        return f"{sys.prefix} is closed to other users"
    return ""


def _closed(path: Path) -> Path | None:
    """The first folder on the way to a path that other users can't enter."""
    way = [path, *path.parents][::-1]
    return next((folder for folder in way if not folder.stat().st_mode & stat.S_IXOTH), None)
