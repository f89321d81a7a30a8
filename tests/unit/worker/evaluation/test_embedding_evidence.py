"""How sure an embedding's likeness to its teacher's is, against a bootstrap that draws texts one by one."""

import numpy as np
import pytest
import torch

from worker.evaluation.embedding_evidence import embedding_evidence, likeness_difference_interval, likeness_interval
from worker.evaluation.metrics import embedding_metrics
from worker.methods.embedding import similarity_correlation

TEXTS = 40


def embedded(noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(TEXTS, 8, generator=generator)
    return teacher + noise * torch.randn(TEXTS, 8, generator=generator), teacher


def drawn_one_by_one(student: torch.Tensor, teacher: torch.Tensor) -> tuple[float, float]:
    unit = [torch.nn.functional.normalize(each.double(), dim=1) for each in (student, teacher)]
    ours, theirs = ((each @ each.T).numpy() for each in unit)
    generator, values = np.random.default_rng(3), []
    for _ in range(600):
        rows = generator.integers(0, TEXTS, TEXTS)
        first, second = np.triu_indices(TEXTS, 1)
        differ = rows[first] != rows[second]
        pairs = rows[first][differ], rows[second][differ]
        values.append(np.corrcoef(ours[pairs], theirs[pairs])[0, 1])
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def test_the_interval_of_the_score_is_that_of_drawn_texts() -> None:
    student, teacher = embedded(noise=0.8)
    interval = likeness_interval(student, teacher)
    low, high = drawn_one_by_one(student, teacher)
    assert interval == pytest.approx((low, high), abs=0.12 * (high - low))
    assert interval is not None
    assert interval[0] < similarity_correlation(student, teacher).item() < interval[1]


def test_a_difference_is_shown_where_there_is_one() -> None:
    (near, teacher), (far, _) = embedded(noise=0.3), embedded(noise=2.0)
    shown = likeness_difference_interval(near, far, teacher)
    assert shown is not None
    assert shown[0] > 0
    assert likeness_difference_interval(near, near, teacher) == (0.0, 0.0)
    assert likeness_interval(teacher, teacher) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("width", [8, 4])
def test_each_figure_lies_in_its_interval(width: int) -> None:
    student, teacher = embedded(noise=0.8)
    found, figures = embedding_evidence(student[:, :width], teacher).intervals, embedding_metrics(student[:, :width], teacher)
    assert found.keys() == figures.keys() - {"similarity_spearman"}
    assert all(low < figures[name] < high for name, (low, high) in found.items())
    assert likeness_interval(student[:2], teacher[:2]) is None
