"""A model straight from its archive predicts just as at home; an archive that is not as it should be is refused."""

import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nnood.errors import UserError
from nnood.inference.predict import find_model, predict
from nnood.paths import Roots
from nnood.safety import read_json
from nnood.sharing import install_model, open_model
from nnood.sharing.manifest import MANIFEST

NAME = "Dataset101_Shared"
FOLDER = "NnoodTrainer__nnood__3d_fullres"
CHECKPOINT = f"{FOLDER}/fold_0/checkpoint_best.pth"
PLANS = f"{FOLDER}/plans.json"
HASHES = f"{FOLDER}/fold_0/checkpoint_best.sha256.json"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def contents(model):
    with zipfile.ZipFile(model) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def described(files):
    """A manifest's `files`."""
    return {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}


def pack(file, files):
    """Write files as they are, with a manifest that is theirs but for data set and versions."""
    own = {name: data for name, data in files.items() if name != MANIFEST}
    manifest = json.loads(files[MANIFEST]) | {"files": described(own)}
    return pack_as_is(file, {**own, MANIFEST: json.dumps(manifest).encode()})


def pack_as_is(file, files):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_STORED if "pth" in name else zipfile.ZIP_DEFLATED)
    return file


def with_checkpoint(files, data):
    """Another checkpoint that all hashes agree with: what somebody would send who knows the format."""
    digest = hashlib.sha256(data).hexdigest()
    plan = json.loads(files["inference_plan.json"])
    plan["members"][0]["sha256"] = digest
    return {
        **files,
        CHECKPOINT: data,
        HASHES: json.dumps([digest]).encode(),
        "inference_plan.json": json.dumps(plan).encode(),
    }


def refused(model, tmp_path, temporary, *words):
    """Neither opened nor installed, in one sentence, and nothing is left."""
    roots = Roots.under(tmp_path / "elsewhere")
    for use in (lambda: open_model(model).__enter__(), lambda: install_model(model, roots)):
        with pytest.raises(UserError) as caught:
            use()
        text = str(caught.value)
        assert "\n" not in text
        assert text.startswith(str(model))
        assert text.endswith(".")
        assert all(word in text for word in words), text
        assert str(temporary) not in text.removeprefix(str(model))
        assert not list(temporary.iterdir())
        assert not roots.results.exists() or not list(roots.results.iterdir())


# ---- what works -----------------------------------------------------------------------------------------------------


def test_it_predicts_bit_by_bit_as_at_home(model_once, shared_once, images, tmp_path, temporary):
    home = predict(images, tmp_path / "home", find_model(shared_once, dataset=NAME), device="cpu")
    shutil.copy(model_once, tmp_path / "copy.zip")
    with open_model(tmp_path / "copy.zip") as planned:
        assert planned.members[0].file.is_relative_to(temporary)
        away = predict(images, tmp_path / "away", planned, device="cpu", save_mask=True)
    assert not list(temporary.iterdir())
    assert away == home
    for file in (tmp_path / "home").glob("*.nii.gz*"):
        assert (tmp_path / "away" / file.name).read_bytes() == file.read_bytes()


def test_a_later_call_goes_on_and_names_the_archive(model_once, images, tmp_path, temporary, monkeypatch):
    for _ in range(2):
        with open_model(model_once) as planned:
            predict(images, tmp_path / "out", planned, device="cpu")
        monkeypatch.setattr("nnood.inference.predict.MapPredictor", None)  # nothing is predicted again
    text = (tmp_path / "out" / "prediction.json").read_text()
    assert str(temporary) not in text
    note = read_json(tmp_path / "out" / "prediction.json")
    assert note["members"] == [f"{model_once}/{CHECKPOINT}"]
    assert note["plan"]["file"] == f"{model_once}/inference_plan.json"


def test_the_command_needs_no_folder_of_nnoods(model_once, images, tmp_path, clean_environment):
    (tmp_path / "tmp").mkdir()
    command = Path(sys.executable).parent / "nnood_predict"
    words = [command, "-i", images, "-o", tmp_path / "out", "--model", model_once, "--device", "cpu"]
    environment = clean_environment | {"TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2
    assert not list((tmp_path / "tmp").glob("nnood-*"))
    assert not (tmp_path / "nnood_data").exists()


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_what_is_no_archive(tmp_path, temporary):
    (tmp_path / "text.zip").write_text("no archive")
    refused(tmp_path / "text.zip", tmp_path, temporary, "no archive")
    refused(tmp_path / "none.zip", tmp_path, temporary, "does not exist")
    pack_as_is(tmp_path / "other.zip", {"a.txt": b"a"})
    refused(tmp_path / "other.zip", tmp_path, temporary, "manifest.json is missing")


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_archive(model_once, tmp_path, temporary, part):
    data = model_once.read_bytes()
    (tmp_path / "model.zip").write_bytes(data[: int(part * len(data))])
    refused(tmp_path / "model.zip", tmp_path, temporary, "ask for")


def test_changed_bytes_are_refused_or_harmless(model_once, tmp_path, temporary):
    """Wherever a byte is changed: the model is refused in one sentence, or is the same (there are unused bytes)."""
    data, rng = model_once.read_bytes(), np.random.default_rng(0)
    directory = data.rindex(b"PK\x01\x02", 0, len(data) - 400)
    places = [*rng.integers(len(data), size=20), *rng.integers(directory - 3000, len(data), size=60)]
    sentences = []
    for place in places:
        changed = bytearray(data)
        changed[place] ^= int(rng.integers(1, 256))
        (tmp_path / "model.zip").write_bytes(changed)
        try:
            with open_model(tmp_path / "model.zip"):
                pass
        except UserError as error:
            sentences.append(str(error))
        assert not list(temporary.iterdir())
    assert len(sentences) > len(places) / 2
    assert not any("\n" in sentence for sentence in sentences)


def test_a_wrong_hash_or_size(model_once, tmp_path, temporary):
    files = contents(model_once)
    manifest = json.loads(files[MANIFEST])
    manifest["files"][CHECKPOINT]["sha256"] = "0" * 64
    pack_as_is(tmp_path / "hash.zip", files | {MANIFEST: json.dumps(manifest).encode()})
    refused(tmp_path / "hash.zip", tmp_path, temporary, CHECKPOINT, "is not what manifest.json says")
    manifest["files"][CHECKPOINT]["size"] -= 1
    pack_as_is(tmp_path / "size.zip", files | {MANIFEST: json.dumps(manifest).encode()})
    refused(tmp_path / "size.zip", tmp_path, temporary, CHECKPOINT, "not of the size")


def test_a_checkpoint_that_the_plan_does_not_know(model_once, tmp_path, temporary):
    files = contents(model_once)
    content = torch.load(io.BytesIO(files[CHECKPOINT]), weights_only=True)
    next(iter(content["network_weights"].values())).zero_()
    other = io.BytesIO()
    torch.save(content, other)
    pack(tmp_path / "hash.zip", files | {CHECKPOINT: other.getvalue()})
    refused(tmp_path / "hash.zip", tmp_path, temporary, CHECKPOINT, "does not agree with the hash beside it")
    digest = hashlib.sha256(other.getvalue()).hexdigest()
    pack(tmp_path / "model.zip", files | {CHECKPOINT: other.getvalue(), HASHES: f'["{digest}"]'.encode()})
    refused(tmp_path / "model.zip", tmp_path, temporary, "is not the checkpoint that the inference plan was made with")


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "extra.json",
        "../escaped.json",
        "/absolute.json",
        "C:/drive.json",
        f"{FOLDER}\\fold_0\\settings.json",
        f"{FOLDER}/../../escaped/plans.json",
        f"{FOLDER}/fold_0/",
        f"{FOLDER}/fold_0/run.py",
        f"{FOLDER}/fold_0/.hidden.pth",
        "a__b__c/plans.json\n",
        "recipes/a\x00.json",
    ],
)
def test_a_file_that_does_not_belong(model_once, tmp_path, temporary, name, listed):
    files = contents(model_once) | {name: b"{}"}
    (pack if listed else pack_as_is)(tmp_path / "model.zip", files)
    refused(tmp_path / "model.zip", tmp_path, temporary, "ask for")
    assert not list(tmp_path.parent.glob("escaped*"))


def test_a_missing_file(model_once, tmp_path, temporary):
    files = contents(model_once)
    del files[PLANS]
    pack_as_is(tmp_path / "listed.zip", files)
    refused(tmp_path / "listed.zip", tmp_path, temporary, PLANS, "is missing")
    pack(tmp_path / "unlisted.zip", files)
    refused(tmp_path / "unlisted.zip", tmp_path, temporary, PLANS, "does not exist")


def test_a_file_that_is_there_twice(model_once, tmp_path, temporary):
    shutil.copy(model_once, tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(PLANS, "{}")
    refused(tmp_path / "model.zip", tmp_path, temporary, PLANS, "is there twice")
    pack(tmp_path / "case.zip", contents(model_once) | {"recipes/NNOOD.json": b"{}"})
    refused(tmp_path / "case.zip", tmp_path, temporary, "is there twice")


def test_a_link(model_once, tmp_path, temporary):
    files = contents(model_once)
    target = files.pop(PLANS)
    pack_as_is(tmp_path / "model.zip", files)
    with zipfile.ZipFile(tmp_path / "model.zip", "a") as archive:
        entry = zipfile.ZipInfo(PLANS)
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, target)
    refused(tmp_path / "model.zip", tmp_path, temporary, PLANS, "is no plain file")


def test_a_bomb_is_refused_before_it_is_unpacked(model_once, tmp_path, temporary, monkeypatch):
    pack(tmp_path / "model.zip", contents(model_once) | {"recipes/bomb.json": b"0" * 40_000_000})
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    refused(tmp_path / "model.zip", tmp_path, temporary, "bomb.json", "more than 200 times")


def test_an_entry_that_lies_about_its_size(model_once, tmp_path, temporary):
    """The list of files says that the bomb is small; no more than that is unpacked."""
    data = b"0" * 4_000_000
    file = pack(tmp_path / "model.zip", contents(model_once) | {"recipes/bomb.json": data})
    raw = file.read_bytes().replace(struct.pack("<L", len(data)), struct.pack("<L", 100))
    file.write_bytes(raw)
    refused(file, tmp_path, temporary, "ask for")


def test_a_bomb_inside_a_checkpoint(model_once, tmp_path, temporary):
    packed = io.BytesIO()
    files = contents(model_once)
    with zipfile.ZipFile(io.BytesIO(files[CHECKPOINT])) as old, zipfile.ZipFile(packed, "w", 8) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    pack(tmp_path / "model.zip", with_checkpoint(files, packed.getvalue()))
    refused(tmp_path / "model.zip", tmp_path, temporary, CHECKPOINT, "is compressed")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        (b"[" * 10_000 + bytes(range(32, 127)) * 10, "is not valid JSON"),
        (b"[]", "schema version None"),
        (b'{"schema_version": 0}', "schema version 0"),
        (b'{"schema_version": 2}', "update nnood"),
        (b'{"schema_version": 1}', "lacks"),
        (b'{"schema_version": 1, "dataset": "../Dataset101_A", "versions": {}, "files": {}}', "dataset"),
        (b'{"schema_version": 1, "dataset": "Dataset101_A", "versions": {}, "files": {"a": 1}}', "not valid"),
        (b'{"schema_version": 1, "dataset": "Dataset101_A", "versions": {}, "files": []}', "not valid"),
    ],
)
def test_a_wrong_manifest(model_once, tmp_path, temporary, content, word):
    pack_as_is(tmp_path / "model.zip", contents(model_once) | {MANIFEST: content})
    refused(tmp_path / "model.zip", tmp_path, temporary, word)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def saved(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@pytest.mark.parametrize("how", ["torch", "pickle", "old"])
def test_a_malicious_pickle_is_not_run(model_once, tmp_path, temporary, how):
    trace = tmp_path / "it_ran"
    content = {"network_weights": {}, "mirror_axes": [], "patches": Malicious(f"touch {trace}")}
    stream = io.BytesIO()
    if how == "torch":
        torch.save(content, stream)
    elif how == "old":
        torch.save(content, stream, _use_new_zipfile_serialization=False)
    else:
        pickle.dump(content, stream)
    pack(tmp_path / "model.zip", with_checkpoint(contents(model_once), stream.getvalue()))
    refused(tmp_path / "model.zip", tmp_path, temporary, CHECKPOINT)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"network_weights": {}},
        {"network_weights": {"a": 1}, "mirror_axes": []},
        {"network_weights": {}, "mirror_axes": [3]},
        {"network_weights": {}, "mirror_axes": [], "optimizer_state": {}},
        [1],
    ],
)
def test_a_checkpoint_of_something_else(model_once, tmp_path, temporary, content):
    pack(tmp_path / "model.zip", with_checkpoint(contents(model_once), saved(content)))
    refused(tmp_path / "model.zip", tmp_path, temporary, CHECKPOINT, "holds something else")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network_class_name", "subprocess.Popen"),
        ("conv_op", "antigravity"),
        ("nonlin", "torch.nn.modules.module.torch.hub.load"),
        ("nonlin", "torch.nn.functional.relu"),
        ("nonlin", "torch.nn.Parameter"),
        ("resampling_fn_data", "recursive_find_python_class"),
        ("normalization_schemes", ["abstractmethod"]),
    ],
)
def test_plans_that_name_what_is_no_network(model_once, tmp_path, temporary, key, value):
    files = contents(model_once)
    plans = json.loads(files[PLANS])
    configuration = plans["configurations"]["3d_fullres"]
    architecture = configuration["architecture"]
    places = (configuration, architecture, architecture["arch_kwargs"])
    next(place for place in places if key in place)[key] = value
    pack(tmp_path / "model.zip", files | {PLANS: json.dumps(plans).encode()})
    refused(tmp_path / "model.zip", tmp_path, temporary, PLANS, value if isinstance(value, str) else value[0])
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", [PLANS, f"{FOLDER}/dataset.json", f"{FOLDER}/fold_0/settings.json", HASHES])
@pytest.mark.parametrize("content", [b"[]", b"1", b"{}", b'{"configurations": []}', b"[" * 100_000])
def test_json_of_another_structure(model_once, tmp_path, temporary, name, content):
    pack(tmp_path / "model.zip", contents(model_once) | {name: content})
    refused(tmp_path / "model.zip", tmp_path, temporary, "refused")


def test_a_plan_of_another_data_set(model_once, tmp_path, temporary):
    files = contents(model_once)
    manifest = json.loads(files[MANIFEST]) | {"dataset": "Dataset102_Other"}
    pack(tmp_path / "model.zip", files | {MANIFEST: json.dumps(manifest).encode()})
    refused(tmp_path / "model.zip", tmp_path, temporary, "refused")
