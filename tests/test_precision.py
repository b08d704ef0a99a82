import pytest
import torch

from nnood import precision
from nnood.errors import UserError
from nnood.precision import autocast_for, choose_device, fastest_device

CPU = torch.device("cpu")


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(precision, "fastest_device", fastest_device)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(precision, "fastest_device", fastest_device)  # which all other tests do without


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_cpu_is_always_there(name: str) -> None:
    assert choose_device(name) == CPU


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(("name", "device"), [("auto", "cuda"), ("cuda", "cuda"), ("cuda:0", "cuda:0"), ("cpu", "cpu")])
def test_a_gpu_is_taken_first(name: str, device: str) -> None:
    assert choose_device(name) == torch.device(device)


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "meta", "gpu", "", "cuda:x"])
def test_absent_and_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"no device {name!r}"):
        choose_device(name)


@pytest.mark.usefixtures("one_gpu")
def test_a_second_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="no device 'cuda:1' on this machine"):
        choose_device("cuda:1")


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_only_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "has_native_bfloat16", lambda: native)
    with autocast_for(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
    with autocast_for(torch.device("cuda")):
        assert not torch.is_autocast_enabled("cuda")
        assert not torch.is_autocast_enabled("cpu")
