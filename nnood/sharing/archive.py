"""Read an archive of a model: everything about it is verified before anything of it is used."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from nnood.errors import UserError
from nnood.inference.predict import Planned
from nnood.sharing.checks import load_model
from nnood.sharing.manifest import MANIFEST, MOST_FILES, Entry, Manifest, find_twice

MOST_RATIO = 200  # JSON of numbers reaches about 20
LARGEST_JSON = 64 * 2**20
CHUNK = 2**20
_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ModelArchive:
    """An archive whose list of files has been checked; their content is, while they are unpacked.

    Attributes:
        file: The archive.
        manifest: What it holds.
    """

    def __init__(self, file: Path, archive: zipfile.ZipFile) -> None:
        """Check the list of files.

        Args:
            file: The archive.
            archive: The same, open.

        Raises:
            UserError: If a file's name, kind, size or compression is not what a model's is, or it is not listed.
        """
        self.file = file
        self._archive = archive
        entries = archive.infolist()
        self._refuse(_list_fault(entries, file.stat().st_size))
        if MANIFEST not in archive.namelist():
            self._refuse(f"{MANIFEST} is missing, so nnood_export did not write it")
        self.manifest = self._read_manifest()
        self._refuse(_difference(entries, self.manifest))

    def unpack(self, folder: Path) -> Path:
        """Write all files.

        Args:
            folder: Gets a folder of the data set's name; must not hold one.

        Returns:
            The data set's folder.

        Raises:
            UserError: If a file is not of the size or content that the manifest says.
        """
        target = folder / self.manifest.dataset
        own = self._archive.getinfo(MANIFEST)
        self._unpack(MANIFEST, Entry(own.file_size, hashlib.sha256(self._archive.read(own)).hexdigest()), target)
        for name, entry in self.manifest.files.items():
            self._unpack(name, entry, target)
        return target

    def _unpack(self, name: str, entry: Entry, folder: Path) -> None:
        """Write one file, and never a byte more than it must have."""
        target, digest, left = folder / name, hashlib.sha256(), entry.size
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._archive.open(name) as source, target.open("xb") as sink:
            while left >= 0 and (chunk := source.read(CHUNK)):
                left -= len(chunk)
                if left >= 0:
                    digest.update(chunk)
                    sink.write(chunk)
        if left or digest.hexdigest() != entry.sha256:
            self._refuse(f"{name} is not what {MANIFEST} says it is")

    def _read_manifest(self) -> Manifest:
        try:
            return Manifest.from_dict(json.loads(self._archive.read(MANIFEST)))
        except UserError as error:
            raise UserError(f"{self.file}: {error}") from error
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise UserError(
                f"{self.file}: {MANIFEST} is not valid JSON ({error}); ask for the archive anew."
            ) from error

    def _refuse(self, fault: str | None) -> None:
        if fault:
            raise UserError(f"{self.file} is refused: {fault}; ask for the archive anew.")


@contextlib.contextmanager
def open_archive(file: Path) -> Iterator[ModelArchive]:
    """Open an archive; what is wrong with it, then or later, is told in one sentence.

    Raises:
        UserError: If the file is missing, damaged, or no archive of a model.
    """
    if not file.is_file():
        raise UserError(f"{file} does not exist; give the archive that nnood_export wrote.")
    try:
        with zipfile.ZipFile(file) as archive:
            yield ModelArchive(file, archive)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError) as error:
        raise UserError(f"{file} is damaged or no archive of a model ({error}); ask for it anew.") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place in the file that there is not
            raise
        raise UserError(f"{file} is damaged; ask for it anew.") from error


@contextlib.contextmanager
def open_model(file: Path) -> Iterator[Planned]:
    """A model straight from its archive, for as long as the context lasts.

    It is verified and unpacked into a temporary folder (`tempfile`'s, so `TMPDIR` says where), which is removed
    afterwards; neither data set nor root folders are needed.

    Args:
        file: As `nnood_export` wrote it.

    Yields:
        Members and plan, for `nnood.inference.predict.predict`.

    Raises:
        UserError: If the archive is damaged, was tampered with, or was written by a newer nnood.
    """
    with tempfile.TemporaryDirectory(prefix="nnood-") as folder:
        with open_archive(file) as archive:
            unpacked = archive.unpack(Path(folder))
        yield dataclasses.replace(load_model(unpacked, file), archive=file)


def _list_fault(entries: list[zipfile.ZipInfo], size: int) -> str | None:
    """What is wrong with the list of an archive's files, before any is read."""
    if len(entries) > MOST_FILES + 1:
        return f"it has more than {MOST_FILES} files"
    if twice := find_twice([entry.filename for entry in entries]):
        return f"{twice!r} is there twice"
    if sum(entry.compress_size for entry in entries) > size:
        return "its files are larger than itself"
    return next((fault for entry in entries if (fault := _entry_fault(entry))), None)


def _entry_fault(entry: zipfile.ZipInfo) -> str | None:
    """What is wrong with an entry that no name, size or hash can mend."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.is_dir() or kind not in (0, stat.S_IFREG) or entry.orig_filename != entry.filename:
        return f"{entry.orig_filename!r} is no plain file"
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
        return f"{entry.filename!r} is encrypted or compressed in an unknown way"
    if entry.file_size > MOST_RATIO * max(1, entry.compress_size):
        return f"{entry.filename!r} would become more than {MOST_RATIO} times as large"
    if entry.filename.endswith(".json") and entry.file_size > LARGEST_JSON:
        return f"{entry.filename!r} is larger than {LARGEST_JSON} bytes"
    return None


def _difference(entries: list[zipfile.ZipInfo], manifest: Manifest) -> str | None:
    """Where the archive's list of files and its manifest disagree; the manifest's names are known to be harmless."""
    sizes = {entry.filename: entry.file_size for entry in entries if entry.filename != MANIFEST}
    if extra := sorted(set(sizes) - set(manifest.files)):
        return f"{MANIFEST} knows nothing of {extra[0]!r}"
    if missing := sorted(set(manifest.files) - set(sizes)):
        return f"{missing[0]!r} is missing"
    wrong = [name for name, entry in manifest.files.items() if sizes[name] != entry.size]
    return f"{wrong[0]} is not of the size that {MANIFEST} says" if wrong else None
