"""Networks start from encoders of nnU-Net, nnssl and nnood; nothing that could run is loaded."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnood.errors import UserError
from nnood.plan import PLANS_FILE
from nnood.safety import read_json, sha256
from nnood.training.checkpoints import BEST
from nnood.training.pretrained import check_pretrained, read_encoder, take_encoder
from nnood.training.recipes import get_recipe
from nnood.training.train import train

NAME = "Dataset999_Phantoms"
PARTS = {
    "conv_op": nn.Conv3d,
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"affine": True},
    "nonlin": nn.LeakyReLU,
    "deep_supervision": True,
}


def plain(channels=1, features=(4, 8, 16), **changes):
    """A network as nnU-Net plans it, with weights that tell it from others."""
    count = len(features)
    settings = PARTS | {
        "n_stages": count,
        "features_per_stage": features,
        "kernel_sizes": [[3] * 3] * count,
        "strides": [[1] * 3, *[[2] * 3] * (count - 1)],
        "num_classes": 1,
        "n_conv_per_stage_decoder": 1,
    }
    return PlainConvUNet(channels, **{**settings, "n_conv_per_stage": 2, **changes})


def residual(channels=1, features=(4, 8)):
    count = len(features)
    return ResidualEncoderUNet(
        channels,
        **PARTS,
        n_stages=count,
        features_per_stage=features,
        kernel_sizes=[[3] * 3] * count,
        strides=[[1] * 3, *[[2] * 3] * (count - 1)],
        num_classes=1,
        n_blocks_per_stage=1,
        n_conv_per_stage_decoder=1,
    )


def save(network, file, **more):
    torch.save({"network_weights": network.state_dict(), **more}, file)
    return file


def encoder(network):
    return {name: value for name, value in network.state_dict().items() if name.startswith("encoder.")}


def assert_same_encoder(one, other):
    for name, value in encoder(one).items():
        assert torch.equal(value, other.state_dict()[name]), name


# ---- what is taken --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [plain, residual])
def test_an_encoder_of_the_same_shape_is_taken_altogether(make, tmp_path):
    source, network = make(), make()
    decoder = network.state_dict()["decoder.transpconvs.0.weight"].clone()
    taken = take_encoder(network, read_encoder(save(source, tmp_path / "a.pth")), tmp_path / "a.pth")
    assert_same_encoder(source, network)
    assert torch.equal(network.state_dict()["decoder.transpconvs.0.weight"], decoder)
    assert taken.tensors == taken.of == len(list(network.encoder.parameters()))
    assert not taken.partly
    assert not taken.averaged
    expected = ("stages.0", "stages.1", "stages.2") if make is plain else ("stem", "stages.0", "stages.1")
    assert taken.whole == expected
    assert taken.describe(Path("a.pth")) == (
        f"Taken from a.pth: {taken.of} of {taken.of} tensors of the encoder ({', '.join(expected)})."
    )


def test_layers_are_taken_whole_or_not_at_all(tmp_path):
    source, network = plain(features=(4, 8, 24)), plain()
    taken = take_encoder(network, read_encoder(save(source, tmp_path / "a.pth")), tmp_path / "a.pth")
    assert (taken.whole, taken.partly, taken.tensors, taken.of) == (("stages.0", "stages.1"), (), 16, 24)
    partly = plain(n_conv_per_stage=[2, 3, 2])
    taken = take_encoder(partly, read_encoder(tmp_path / "a.pth"), tmp_path / "a.pth")
    assert (taken.whole, taken.partly) == (("stages.0",), ("stages.1",))
    assert "(stages.0; in part stages.1)" in taken.describe(Path("a.pth"))


@pytest.mark.parametrize(("before", "now"), [(3, 1), (1, 4), (4, 2)])
def test_other_channels_are_averaged_and_answer_alike(before, now, tmp_path):
    source, network = plain(before), plain(now)
    taken = take_encoder(network, read_encoder(save(source, tmp_path / "a.pth")), tmp_path / "a.pth")
    assert taken.averaged == before
    assert f"their mean over {before} channels" in taken.describe(Path("a.pth"))
    image = torch.randn(1, 1, 8, 8, 8)
    first = [one.encoder(image.expand(-1, count, -1, -1, -1))[0] for one, count in ((source, before), (network, now))]
    torch.testing.assert_close(*first, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{"norm_op": nn.InstanceNorm2d, "conv_op": nn.Conv2d}, {"features": (5, 7, 11)}])
def test_where_nothing_fits_nothing_is_taken(changes, tmp_path):
    if "conv_op" in changes:  # in two dimensions biases and norms would fit
        changes |= {"kernel_sizes": [[3] * 2] * 3, "strides": [[1] * 2, [2] * 2, [2] * 2]}
    network = plain(**changes)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError, match=r"fits no layer of the encoder that was planned .*leave out --pretrained\.$"):
        take_encoder(network, read_encoder(save(plain(), tmp_path / "a.pth")), tmp_path / "a.pth")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["encoder", "online_encoder", "net.encoder"])
@pytest.mark.parametrize("wrapper", ["", "module.", "module._orig_mod."])
def test_nnssl_says_what_the_encoder_is_called(name, wrapper, tmp_path):
    source, network = residual(), residual()
    weights = {f"{wrapper}{name}{key.removeprefix('encoder')}": value for key, value in encoder(source).items()}
    plan = {
        "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None},
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": [160, 160, 160],
        "key_to_encoder": f"{name}.stages",
        "key_to_stem": f"{name}.stem",
        "keys_to_in_proj": [f"{name}.stem.convs.0.conv", f"{name}.stem.convs.0.all_modules.0"],
    }
    torch.save({"network_weights": weights, "nnssl_adaptation_plan": plan, "citations": []}, tmp_path / "a.pth")
    take_encoder(network, read_encoder(tmp_path / "a.pth"), tmp_path / "a.pth")
    assert_same_encoder(source, network)


# ---- what is refused ------------------------------------------------------------------------------------------------


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("old", [False, True])
def test_a_malicious_checkpoint_is_not_run(old, tmp_path):
    file = tmp_path / "a.pth"
    content = {"network_weights": plain().state_dict(), "init_args": Malicious(f"touch {tmp_path / 'it_ran'}")}
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match=r"a\.pth is no checkpoint of tensors and plain values") as caught:
        read_encoder(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no checkpoint of tensors"),
        (b"text", "is no checkpoint of tensors"),
        ([1], "it has no network_weights"),
        ({"state_dict": {}}, "it has no network_weights"),
        ({"network_weights": [1]}, "it has no network_weights"),
        ({"network_weights": {"decoder.a": torch.ones(1)}}, r"has no weights of an encoder \(named encoder"),
        ({"network_weights": {1: 2}, "nnssl_adaptation_plan": {"key_to_encoder": "eva"}}, "named eva"),
    ],
)
def test_what_is_no_such_checkpoint(content, message, tmp_path):
    file = tmp_path / "a.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match=message):
        read_encoder(file)


def test_a_truncated_or_missing_file(tmp_path):
    file = save(plain(), tmp_path / "a.pth")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="is no checkpoint of tensors"):
        read_encoder(file)
    with pytest.raises(UserError, match="does not exist"):
        read_encoder(tmp_path / "none.pth")


def test_a_file_that_was_changed_meanwhile(tmp_path):
    file = save(plain(), tmp_path / "a.pth")
    digest = sha256(file)
    save(plain(), file)
    with pytest.raises(UserError, match="was changed"):
        read_encoder(file, digest)


def test_autoencoders_with_an_encoder_of_their_own(tmp_path):
    file = save(plain(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"those of the recipe vae don't have; leave it out\.$"):
        check_pretrained(file, get_recipe("vae"))
    assert get_recipe("dae").reconstruction.encoder == "unet"
    assert check_pretrained(file, get_recipe("dae")) == sha256(file)


# ---- whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def nnunets(tiny, tmp_path, monkeypatch):
    """A checkpoint that nnU-Net's own trainer wrote, with numpy's scalars in its log."""
    plans = read_json(tiny.preprocessed / NAME / PLANS_FILE)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "nnunet"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tiny.preprocessed))
    monkeypatch.setenv("nnUNet_raw", str(tiny.raw))
    dataset_json = read_json(tiny.preprocessed / NAME / "dataset.json")
    own = plans | {"continue_training": False}
    trainer = nnUNetTrainer(own, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    trainer.initialize()
    trainer._best_ema = np.float64(0.5)
    trainer.logger.local_logger.my_fantastic_logging["ema_fg_dice"] += [np.float32(0.1), np.float64(0.2)]
    trainer.save_checkpoint(str(tmp_path / "nnunet.pth"))
    return tmp_path / "nnunet.pth", trainer.network


def encoder_at_start(tiny, pretrained, monkeypatch):
    """The encoder before the first step of a run."""
    found = {}

    def keep(trainer):
        found.update({name: value.clone() for name, value in encoder(trainer.plain_network()).items()})

    with monkeypatch.context() as patch:
        patch.setattr("nnood.training.trainer.NnoodTrainer._start", keep)
        (folder,) = train(NAME, 0, tiny, epochs=1, iterations=1, device="cpu", pretrained=pretrained)
    return found, folder


def test_nnunets_own_checkpoint(tiny, nnunets, monkeypatch, capsys):
    file, network = nnunets
    found, folder = encoder_at_start(tiny, file, monkeypatch)
    assert all(torch.equal(value, found[name]) for name, value in encoder(network).items())
    assert f"Taken from {file}: " in capsys.readouterr().out
    assert read_json(folder / "settings.json")["pretrained"] == sha256(file)


def test_nnoods_own_checkpoint_starts_another_run(tiny, tmp_path, monkeypatch):
    (folder,) = train(NAME, 0, tiny, epochs=1, iterations=1, device="cpu")
    assert "pretrained" not in read_json(folder / "settings.json")
    file = (folder / BEST).rename(tmp_path / "start.pth")
    folder.rename(tmp_path / "first")
    found, _ = encoder_at_start(tiny, file, monkeypatch)
    weights = torch.load(file, weights_only=True)["network_weights"]
    assert all(torch.equal(value, weights[name]) for name, value in found.items())


def test_going_on_wants_the_same_file_and_does_not_load_it_again(tiny, nnunets, tmp_path, monkeypatch):
    file, _ = nnunets
    _, folder = encoder_at_start(tiny, file, monkeypatch)
    (folder / "checkpoint_final.pth").unlink()
    settings = {"epochs": 1, "iterations": 1, "device": "cpu", "go_on": True}
    other = tmp_path / "other.pth"
    content = torch.load(file, weights_only=False)  # our own
    torch.save(content | {"current_epoch": 7}, other)
    for wrong in (None, other):
        with pytest.raises(UserError, match="was started with other settings"):
            train(NAME, 0, tiny, pretrained=wrong, **settings)
    moved = file.rename(tmp_path / "moved.pth")
    monkeypatch.setattr("nnood.training.trainer.take_encoder", None)
    train(NAME, 0, tiny, pretrained=moved, **settings)
    assert (folder / "checkpoint_final.pth").exists()


def test_what_does_not_fit_does_not_start(tiny, tmp_path):
    file = save(plain(features=(5, 7, 11)), tmp_path / "a.pth")
    with pytest.raises(UserError, match="fits no layer"):
        train(NAME, 0, tiny, epochs=1, iterations=1, device="cpu", pretrained=file)
    (folder,) = train(NAME, 0, tiny, epochs=1, iterations=1, device="cpu")
    assert (folder / BEST).exists()
