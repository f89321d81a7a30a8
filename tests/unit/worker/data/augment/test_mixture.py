"""What a second sample does to the first, and how much of the first is left."""

import pytest
import torch

from service.spec.augment import Mixup
from service.spec.image_augment import CutMix
from tests.unit.worker.data.augment.draws import chosen, drawn
from worker.data.augment.mixture import cutmix, mixup


@pytest.mark.parametrize("shape", [(3, 4, 5), (30,), (6, 7)])
def test_mixup_is_the_weighted_mean_of_any_two_inputs(shape: tuple[int, ...]) -> None:
    samples, partners = torch.randint(0, 256, (2, 9, *shape), dtype=torch.uint8)
    mixed, shares = mixup(Mixup(name="mixup"), samples, partners, drawn(9))
    assert mixed.dtype is torch.float32
    for mix, sample, partner, share in zip(mixed, samples, partners, shares, strict=True):
        torch.testing.assert_close(mix, share * sample.float() + (1 - share) * partner.float())


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    zeros = torch.zeros(20_000, 1)
    _, shares = mixup(Mixup(name="mixup", alpha=alpha), zeros, zeros, drawn(20_000))
    assert shares.mean().item() == pytest.approx(0.5, abs=0.01)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    assert shares.min() >= 0
    assert shares.max() <= 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_area_of_the_box_is_what_the_share_lacks(dtype: torch.dtype) -> None:
    samples, partners = torch.zeros(200, 3, 11, 6, dtype=dtype), torch.ones(200, 3, 11, 6, dtype=dtype)
    mixed, shares = cutmix(CutMix(name="cutmix", probability=1.0), samples, partners, drawn(200))
    assert mixed.dtype is dtype
    torch.testing.assert_close(mixed.float().mean(dim=(1, 2, 3)), 1 - shares)
    for image in mixed[:, 0]:
        rows, columns = image.any(dim=1), image.any(dim=0)
        assert torch.equal(image.bool(), rows[:, None] & columns[None, :])  # a box
        for side in (rows, columns):
            ends = side.nonzero().flatten().tolist()
            assert ends == list(range(ends[0], ends[-1] + 1)) if ends else True  # without holes
    assert 0.6 < shares.mean() < 0.8  # 0.68 with so fine pixels that nothing is rounded
    assert len(set(shares.tolist())) > 20


def test_the_box_has_the_images_proportions_and_is_cut_off_at_the_border() -> None:
    samples, partners = torch.zeros(3, 1, 8, 12), torch.ones(3, 1, 8, 12)
    spec = CutMix(name="cutmix", alpha=1.0, probability=0.5)
    # 1 - λ is 0.26: half of each side and a little more. In the middle, in a corner, and not at all.
    mixed, shares = cutmix(spec, samples, partners, chosen([0.74, 0, 0.5, 0.5], [0.74, 0, 0, 0], [0.74, 0.5, 0.5, 0.5]))
    expected = torch.zeros(3, 8, 12)
    expected[0, 2:6, 3:9] = 1
    expected[1, :2, :3] = 1
    assert torch.equal(mixed[:, 0], expected)
    assert shares.tolist() == pytest.approx([1 - 24 / 96, 1 - 6 / 96, 1])
