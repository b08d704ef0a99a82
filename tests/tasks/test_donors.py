"""Who lends to whom."""

import torch

from nnood.tasks import TaskSettings, build_task
from nnood.tasks.donors import BANK_SIZE, Donors


def images_of(*values: float) -> torch.Tensor:
    """Images (B, 1, 8, 8), each filled with its own value."""
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone()


def drawn(donors: Donors, target: int, count: int = 100) -> set[float]:
    generator = torch.Generator().manual_seed(0)
    images = [donors.image(target, generator) for _ in range(count)]
    return {image.unique().item() for image in images if image is not None}


def test_never_the_same_case():
    donors = Donors()
    donors.begin_batch(["a", "b"], images_of(1, 2))
    donors.begin_batch(["a", "c"], images_of(3, 4))
    assert drawn(donors, 0) == {2, 4}
    assert drawn(donors, 1) == {1, 2, 3}


def test_a_donor_is_lent_as_it_is():
    donors = Donors()
    image = torch.arange(128.0).reshape(1, 2, 8, 8)
    donors.begin_batch(["a", "b"], torch.cat([torch.zeros(1, 2, 8, 8), image]))
    lent = donors.image(0, torch.Generator())
    assert lent is not None
    assert torch.equal(lent, image[0])


def test_the_bank_keeps_the_newest_only():
    donors = Donors(bank_size=3)
    for number in range(10):
        donors.begin_batch([f"case {number}"], images_of(number))
    assert drawn(donors, 0) == {6, 7, 8}


def test_the_bank_is_bounded_by_itself():
    donors = Donors()
    for number in range(100):
        donors.begin_batch([f"case {number}"], images_of(number))
    assert drawn(donors, 0, count=1000) == set(range(99 - BANK_SIZE, 99))


def test_images_of_another_size_are_no_donors():
    donors = Donors()
    donors.begin_batch(["a"], torch.zeros(1, 1, 9, 9))
    donors.begin_batch(["b"], torch.zeros(1, 2, 8, 8))
    donors.begin_batch(["c"], images_of(1))
    assert donors.image(0, torch.Generator()) is None


def test_external_images_lend_all_and_the_own_none():
    donors = Donors(external=[*images_of(7, 8), torch.zeros(1, 9, 9)])
    donors.begin_batch(["a", "b"], images_of(1, 2))
    donors.begin_batch(["c", "d"], images_of(3, 4))
    assert drawn(donors, 0) == {7, 8}
    assert drawn(donors, 1) == {7, 8}


def test_external_images_of_another_size_leave_no_donor():
    donors = Donors(external=[torch.zeros(1, 9, 9)])
    donors.begin_batch(["a", "b"], images_of(1, 2))
    assert donors.image(0, torch.Generator()) is None


def test_without_a_donor_fpi_fails_and_is_counted():
    donors = Donors()
    image = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    donors.begin_batch(["a", "a"], image)
    task = build_task("fpi", TaskSettings((8, 8), (0.3, 0.7), (0.4,)))
    result = task(image, torch.ones(2, 8, 8, dtype=torch.bool), donors, torch.Generator())
    assert result.failed.all()
    assert torch.equal(result.image, image)
    assert not result.label.any()


def test_an_invisible_change_is_not_made_and_counted():
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    donors = Donors()
    donors.begin_batch(["a", "b"], torch.cat([image, image + 0.01]))
    task = build_task("fpi", TaskSettings((8, 8), (0.3, 0.7), (0.4,)))
    result = task(image, torch.ones(1, 8, 8, dtype=torch.bool), donors, torch.Generator())
    assert result.failed.all()
    assert torch.equal(result.image, image)
    assert not result.label.any()


def test_a_restored_bank_lends_the_same():
    donors, restored = Donors(), Donors()
    for number in range(BANK_SIZE + 3):
        donors.begin_batch([f"case {number}", "b"], images_of(number, 100 + number))
    restored.restore(donors.state())
    for one in (donors, restored):
        one.begin_batch(["b", "new"], images_of(500, 501))
    assert drawn(restored, 0) == drawn(donors, 0)
    assert len(drawn(restored, 1, 300)) == BANK_SIZE + 1
