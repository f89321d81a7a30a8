"""Several targets side by side: their columns, their labels, and what each of them loses."""

import math

import pytest
import torch
from torch.nn import functional

from worker.data.adopted import relabel_samples
from worker.evaluation.evaluate import agreement, score_by_teacher, score_outputs
from worker.evaluation.metrics import target_agreement, target_metrics
from worker.targets import MixedLabels, Target, Targets, has_labels, label_loss, standard_of, target_losses

COLOUR, SIZE, SHAPE = Target("colour", ("red", "blue")), Target("size", None), Target("shape", ("a", "b", "c"))
MANY = Targets((COLOUR, SIZE, SHAPE))
NAN = math.nan
LABELS = torch.tensor([[0.0, 1.0, 2.0], [1.0, NAN, NAN], [NAN, 3.0, 0.0]])


def outputs() -> torch.Tensor:
    return torch.randn(3, MANY.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_each_target_has_its_own_columns_and_names() -> None:
    assert MANY.width == 6
    assert [part.shape[-1] for part in MANY.split(outputs())] == [2, 1, 3]
    assert torch.equal(torch.cat(MANY.split(outputs()), dim=-1), outputs())
    assert MANY.classes == ["colour: red", "colour: blue", "size", "shape: a", "shape: b", "shape: c"]
    assert Targets((COLOUR,)).classes == ["red", "blue"]
    assert not Targets((SIZE,)).is_classification


def test_a_missing_label_counts_for_its_own_target_only() -> None:
    logits = outputs()
    colour, size, shape = MANY.split(logits)
    losses = target_losses(MANY, logits, LABELS)

    assert losses[0].item() == pytest.approx(functional.cross_entropy(colour[:2], torch.tensor([0, 1])).item())
    assert losses[1].item() == pytest.approx(((size[0, 0] - 1) ** 2 + (size[2, 0] - 3) ** 2).item() / 2)
    assert losses[2].item() == pytest.approx(functional.cross_entropy(shape[[0, 2]], torch.tensor([2, 0])).item())
    assert label_loss(MANY, logits, LABELS).item() == pytest.approx(losses.sum().item())


def test_a_batch_without_any_label_of_a_target_loses_nothing_there_and_teaches_nothing() -> None:
    logits = outputs().requires_grad_()
    losses = target_losses(MANY, logits, torch.full((3, 3), NAN))
    (gradient,) = torch.autograd.grad(losses.sum(), logits)

    assert losses.tolist() == [0, 0, 0]
    assert gradient.count_nonzero() == 0


def test_one_target_of_classes_is_the_plain_cross_entropy() -> None:
    targets, labels = Targets((SHAPE,)), torch.tensor([0, 2, 1])
    logits = torch.randn(3, 3, dtype=torch.float64)
    assert label_loss(targets, logits, labels).item() == functional.cross_entropy(logits, labels).item()
    assert target_losses(targets, logits, labels).item() == pytest.approx(functional.cross_entropy(logits, labels).item())


def test_the_score_is_accuracy_and_the_share_of_variance_explained() -> None:
    logits = torch.zeros(3, MANY.width)
    logits[:, 0] = 1  # always red: right for the first of the two that have a colour
    logits[:, 2] = torch.tensor([1.0, 9.0, 3.0])  # exact where the size is known
    logits[:, 5] = 1  # always c: right for the first of two
    assert score_outputs(logits, LABELS, MANY).score == pytest.approx((0.5 + 1.0 + 0.5) / 3)

    numbers = Targets((SIZE,))
    mean_alone = torch.full((3, 1), 2.0)
    assert score_outputs(mean_alone, torch.tensor([[1.0], [NAN], [3.0]]), numbers).score == pytest.approx(0.0)


def test_two_networks_agree_by_target() -> None:
    first, second = torch.zeros(4, MANY.width), torch.zeros(4, MANY.width)
    first[:, 2] = second[:, 2] = torch.arange(4.0)
    second[:2, 1] = 1  # another colour for half of the samples
    assert agreement(first, second, MANY) == pytest.approx((0.5 + 1.0 + 1.0) / 3)


def test_classes_that_some_samples_lack_count_where_they_are() -> None:
    targets = Targets((SHAPE,))
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    some = label_loss(targets, logits, torch.tensor([-1, 2, -1, 0]))
    (gradient,) = torch.autograd.grad(some, logits)

    assert torch.equal(some, functional.cross_entropy(logits[[1, 3]], torch.tensor([2, 0])))
    assert gradient[[0, 2]].count_nonzero() == 0
    assert gradient[[1, 3]].count_nonzero() == 6


def test_a_batch_without_any_class_has_a_loss_of_zero_and_no_gradient() -> None:
    targets = Targets((SHAPE,))
    logits = torch.randn(2, 3).requires_grad_()
    none = label_loss(targets, logits, torch.tensor([-1, -1]))
    (gradient,) = torch.autograd.grad(none + logits.sum(), logits)

    assert none.item() == 0
    assert torch.equal(gradient, torch.ones(2, 3))


def test_whether_there_are_labels_is_told_of_classes_and_of_numbers() -> None:
    assert [has_labels(torch.tensor(labels)) for labels in ([-1, -1], [-1, 0], [NAN, NAN], [[NAN, 1.0]])] == [
        False,
        True,
        False,
        True,
    ]
    assert not has_labels(torch.empty(3, 0))


def test_which_samples_have_a_label_is_told_by_target() -> None:
    assert [known.tolist() for known in MANY.known(LABELS)] == [[True, True, False], [True, False, True], [True, False, True]]
    (of_samples,) = Targets((SHAPE,)).known(torch.tensor([2, -1]))
    (of_words,) = Targets((SHAPE,)).known(torch.tensor([[0, -1, -2], [-1, -2, -2]]))
    assert of_samples.tolist() == of_words.tolist() == [True, False]


def test_numbers_that_differ_by_rounding_alone_agree_with_nothing() -> None:
    numbers, rising = Targets((SIZE,)), torch.linspace(-1, 1, 50)[:, None]
    constant = 0.3 + 1e-8 * rising.double()
    assert agreement(rising, constant.to(torch.float32), numbers) == 0.0
    assert agreement(rising, constant, numbers) == 0.0
    assert target_agreement(rising, constant, numbers)["size"]["pearson"] == 0.0
    assert agreement(rising, 0.3 + 1e-3 * rising, numbers) == pytest.approx(1.0)


@pytest.mark.parametrize(("scale", "shift"), [(0.01, 9.0), (1.0, 3.0), (5.0, 0.0)])
def test_a_student_whose_numbers_are_shifted_or_scaled_is_chosen_after_one_that_is_near(scale: float, shift: float) -> None:
    numbers, teacher = Targets((SIZE,)), torch.linspace(-2, 2, 50)[:, None]
    near = teacher + 0.3 * torch.sin(9 * teacher)
    assert agreement(teacher, scale * teacher + shift, numbers) == pytest.approx(1.0)
    moved = score_by_teacher(scale * teacher + shift, teacher, numbers).score
    assert moved < 0.5 < score_by_teacher(near, teacher, numbers).score
    assert score_by_teacher(teacher, teacher, numbers).score == 1.0


def test_the_score_by_a_teacher_is_the_mean_over_the_targets_it_teaches() -> None:
    teacher, student = torch.zeros(4, MANY.width), torch.zeros(4, MANY.width)
    teacher[:, 2], student[:, 2] = torch.arange(4.0), 1.5  # the mean alone explains nothing
    student[:2, 1] = 1  # another colour for half of the samples
    assert score_by_teacher(student, teacher, MANY).score == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert score_by_teacher(student, teacher, MANY, only={"colour", "shape"}).score == pytest.approx(0.75)


def test_errors_are_told_in_the_datas_unit_and_r2_has_none() -> None:
    years = Targets((Target("year", None, mean=1997.0, scale=5.0),))
    metrics = target_metrics(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [-1.0]]), years)["year"]
    assert (metrics["mse"], metrics["mae"], metrics["r2"]) == pytest.approx((12.5, 2.5, 0.5))


def test_numbers_are_standardised_by_the_mean_and_the_deviation_of_those_that_are_known() -> None:
    assert standard_of(torch.tensor([1990.0, 2004.0, NAN])) == (1997.0, 7.0)
    assert standard_of(torch.tensor([1e-4, 3e-4], dtype=torch.float64)) == pytest.approx((2e-4, 1e-4))
    assert standard_of(torch.tensor([1e16, 1e16 + 4], dtype=torch.float64)) == (1e16 + 2, 2.0)


def test_numbers_around_0_keep_their_0() -> None:
    assert standard_of(torch.tensor([-1.0, 2.0, 0.0, 0.0])) == pytest.approx((0.0, math.sqrt(19) / 4))
    assert standard_of(torch.tensor([0.0, 4.0])) == (2.0, 2.0)


@pytest.mark.parametrize("equal", [[2.0, 2.0, NAN], [0.1] * 7, [-1e9, -1e9], [0.0, 0.0]])
def test_numbers_that_never_vary_can_be_divided_by_and_are_0(equal: list[float]) -> None:
    values = torch.tensor(equal, dtype=torch.float64)
    assert standard_of(values) == (equal[0], 1.0)
    assert standard_of(torch.tensor([NAN])) == (0.0, 1.0)


def test_outputs_in_the_datas_units_are_standardised_by_target() -> None:
    targets = Targets((COLOUR, Target("year", None, mean=1997.0, scale=5.0)))
    outputs = torch.tensor([[1.0, 2.0, 2007.0], [NAN, NAN, 1992.0]])
    torch.testing.assert_close(
        targets.standardise(outputs), torch.tensor([[1.0, 2.0, 2.0], [NAN, NAN, -1.0]]), rtol=0, atol=0, equal_nan=True
    )
    assert MANY.standardise(outputs) is outputs


def test_labels_of_parts_have_the_target_last_and_a_place_of_no_part_is_not_known() -> None:
    labels = torch.tensor([[[0.0, 1.0, NAN], [NAN, 2.0, 2.0]], [[1.0, NAN, NAN], [-math.inf] * 3]])
    assert MANY.labels_of(labels, 0).tolist() == [[0, -1], [1, -2]]
    assert [known.tolist() for known in MANY.known(labels)] == [[True, True], [True, False], [True, False]]
    assert not has_labels(labels[1:, 1:])
    assert standard_of(torch.cat([labels[..., 1].flatten(), torch.tensor([5.0, 5.0])])) == pytest.approx(
        (3.25, math.sqrt(3.1875))
    )


def test_labels_of_parts_are_renumbered_and_stay_where_they_were() -> None:
    labels = torch.tensor([[[0.0, 1.5], [NAN, NAN]], [[1.0, NAN], [-math.inf] * 2]])
    before, after = Targets((COLOUR, SIZE)), Targets((Target("colour", ("blue", "red")), SIZE))
    expected = torch.tensor([[[1.0, 1.5], [NAN, NAN]], [[0.0, NAN], [-math.inf] * 2]])
    torch.testing.assert_close(relabel_samples(labels, before, after), expected, rtol=0, atol=0, equal_nan=True)


WEIGHTED = Target("shape", ("a", "b", "c"), class_weights=(0.5, 2.0, 5.0), label_smoothing=0.2)


@pytest.mark.parametrize("labels", [[0, 2, 1, 2], [0, -1, 1, -1]])
def test_weighted_classes_and_smoothed_labels_are_those_of_torch(labels: list[int]) -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    theirs = functional.cross_entropy(
        logits,
        torch.tensor(labels),
        weight=torch.tensor([0.5, 2.0, 5.0], dtype=torch.float64),
        label_smoothing=0.2,
        ignore_index=-1,
    ).item()

    alone = label_loss(Targets((WEIGHTED,)), logits, torch.tensor(labels))
    beside = torch.tensor([[NAN if label < 0 else label, 0.0] for label in labels], dtype=torch.float64)
    among = target_losses(Targets((WEIGHTED, SIZE)), torch.cat([logits, torch.ones(4, 1)], dim=1), beside)

    assert alone.item() == pytest.approx(theirs)
    assert among.tolist() == pytest.approx([theirs, 1.0])


def test_a_mixture_of_weighted_classes_counts_each_label_by_its_share() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    own, other, shares = torch.tensor([0, 1]), torch.tensor([2, -1]), torch.tensor([0.75, 0.25], dtype=torch.float64)
    mixed = label_loss(Targets((WEIGHTED,)), logits, own, MixedLabels(other, shares))

    # As torch has it of six rows, each as often as its share says.
    rows, labels = logits[[0, 0, 0, 0, 1]], torch.tensor([0, 0, 0, 2, 1])
    weight = torch.tensor([0.5, 2.0, 5.0], dtype=torch.float64)
    assert mixed.item() == pytest.approx(functional.cross_entropy(rows, labels, weight=weight, label_smoothing=0.2).item())
