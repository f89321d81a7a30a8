"""What batches of tokens teach, against the formulas written out, and the values of seeded losses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn import functional

from service.spec.architectures import TransformersNetwork
from service.spec.methods import OF_TOKENS, MethodSpec
from service.spec.shapes import TokenShape
from worker.data.samples import Samples
from worker.data.tensors import only_tensor
from worker.data.text.language import Framing, RowStyle, answered, language_inputs
from worker.distributed.ranks import SINGLE_PROCESS
from worker.errors import JobFault
from worker.evaluation.precision import Precision
from worker.models import build_network
from worker.models.language_network import LanguageNetwork
from worker.tasks import TASKS
from worker.training.causal_lm import (
    LanguageTeacher,
    NextTokenCriterion,
    check_generation_fits,
    generate_texts,
    language_criterion,
)
from worker.training.criterion import Criterion, StepContext

CPU = torch.device("cpu")
STEP = StepContext(0, steps_per_epoch=1, last_step=1, precision=Precision(CPU, None), group=SINGLE_PROCESS)
VOCABULARY, LENGTH, END, PAD = 11, 8, 0, 1
FRAMING = Framing(start=(), end=END, pad=PAD)
ROWS = torch.arange(4)
SEEDED_FILE = Path(__file__).parents[3] / "data" / "seeded_losses.json"
SMALL: dict[str, dict[str, Any]] = {
    "sequence": {"max_new_tokens": 3, "prompt_tokens": 3, "num_beams": 2},
    "on-policy": {"max_new_tokens": 3, "prompt_tokens": 3, "student_share": 1.0},
}


def network(width: int, *, vocabulary: int = VOCABULARY, positions: int = 2 * LENGTH, seed: int = 0) -> LanguageNetwork:
    """In float64 and without dropout, with larger weights than its library's first ones, so that it has opinions."""
    torch.manual_seed(seed)
    config = {"n_layer": 1, "n_embd": width, "n_head": 2, "n_positions": positions}
    shape = TokenShape(vocabulary, LENGTH, pad=PAD, end=END)
    architecture = TransformersNetwork(name="transformers", model_type="gpt2", config=config)
    built = build_network(architecture, kind=TASKS["causal-lm"].network, input_shape=shape, num_outputs=0)
    assert isinstance(built, LanguageNetwork)
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return built.double().eval()


def rows(vocabulary: int = VOCABULARY) -> Samples:
    ids = torch.randint(2, vocabulary, (4, LENGTH), generator=torch.Generator().manual_seed(3))
    mask = torch.ones(4, LENGTH, dtype=torch.bool)
    ids[1, 5], ids[1, 6:], mask[1, 6:] = END, PAD, False
    mask[2, :4] = False  # a prompt
    return Samples(ids, mask, None, CPU)


def method(name: str, **settings: Any) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(MethodSpec)
    return adapter.validate_python({"name": name} | SMALL.get(name, {}) | settings)


def log_probabilities(network: LanguageNetwork, samples: Samples) -> tuple[Tensor, Tensor]:
    """(M, V) of the tokens that count by the library's own forward pass, and these tokens."""
    counted = samples.labels[:, 1:]
    logits = network.model(input_ids=samples.inputs).logits[:, :-1][counted]
    return logits.log_softmax(dim=-1), only_tensor(samples.inputs)[:, 1:][counted]


def loss_of(name: str, **settings: Any) -> float:
    student, teacher, samples = network(4), LanguageTeacher(network(8, seed=1), FRAMING, LENGTH), rows()
    spec = method(name, **settings)
    generated = generate_texts(spec, teacher, samples, seed=5, after_batch=lambda done: None) if name == "sequence" else None
    torch.manual_seed(7)
    return language_criterion(spec, student, samples, teacher, generated=generated)(ROWS, STEP).item()


@pytest.mark.parametrize("name", sorted(OF_TOKENS))
def test_a_seeded_loss_is_what_it_was(name: str) -> None:
    """Recorded: a change of code that is not meant to change a loss leaves these as they are."""
    assert loss_of(name) == pytest.approx(json.loads(SEEDED_FILE.read_text())[name], rel=1e-9)


@pytest.mark.parametrize("name", ["labels", "forward-kl", "reverse-kl", "jsd"])
def test_texts_that_share_rows_teach_what_they_teach_in_rows_of_their_own(name: str) -> None:
    """In float32, in one piece and in three."""
    draw = torch.Generator().manual_seed(1)
    texts = [torch.randint(2, VOCABULARY, (length,), generator=draw).tolist() for length in (2, 5, 1, 4, 3, 6, 2)]
    student, teacher = network(4).float(), LanguageTeacher(network(8, seed=1).float(), FRAMING, LENGTH)
    found = {}
    for isolates in (False, True):
        made = answered(texts, texts[::-1], FRAMING, RowStyle(2 * LENGTH, isolates=isolates))
        samples = Samples(language_inputs(made.ids, made.positions), made.mask, None, CPU)
        criterion: Criterion = NextTokenCriterion(student, samples)
        if name != "labels":
            criterion = language_criterion(method(name, label_weight=0.5), student, samples, teacher)
        for pieces in (1, 3):
            student.zero_grad()
            losses = []
            for piece in criterion.pieces(torch.arange(len(samples)).tensor_split(pieces), STEP):
                losses.append(piece())
                losses[-1].backward()  # type: ignore[no-untyped-call]
            gradients = [weight.grad.clone() for weight in student.parameters() if weight.grad is not None]
            found[isolates, pieces] = [torch.stack(losses).sum().detach(), *gradients]
    assert len(made.ids) < len(texts), "or no row is shared"
    for other in found.values():
        torch.testing.assert_close(other, found[False, 1])


def test_without_a_teacher_it_is_the_cross_entropy_of_the_tokens_that_count() -> None:
    student, samples = network(4), rows()
    log_p, labels = log_probabilities(student, samples)
    loss = NextTokenCriterion(student, samples)(ROWS, STEP)
    torch.testing.assert_close(loss, functional.nll_loss(log_p, labels))
    (gradient,) = torch.autograd.grad(loss, student.model.get_input_embeddings().weight)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().sum()) > 0


@pytest.mark.parametrize(("name", "first", "second"), [("forward-kl", 1, 0), ("reverse-kl", 0, 1)])
def test_the_divergences_are_those_of_the_libraries_own_logits_with_the_labels_beside_them(
    name: str, first: int, second: int
) -> None:
    samples = rows()
    student, labels = log_probabilities(network(4), samples)
    teacher, _ = log_probabilities(network(8, seed=1), samples)
    both = (student, teacher)
    divergence = (both[first].exp() * (both[first] - both[second])).sum(dim=-1).mean()
    expected = 2 * divergence + 0.5 * functional.nll_loss(student, labels)
    assert loss_of(name, weight=2.0, label_weight=0.5) == pytest.approx(expected.item(), rel=1e-9)


def test_rows_of_a_vocabulary_beyond_the_tokenizers_tokens_take_no_part() -> None:
    samples, student, larger = rows(), network(4), network(8, vocabulary=VOCABULARY + 3, seed=1)
    ours, _ = log_probabilities(student, samples)
    counted = samples.labels[:, 1:]
    theirs = larger.model(input_ids=samples.inputs).logits[:, :-1][counted][:, :VOCABULARY].log_softmax(dim=-1)
    expected = (theirs.exp() * (theirs - ours)).sum(dim=-1).mean()
    criterion = language_criterion(method("forward-kl"), student, samples, LanguageTeacher(larger, FRAMING, LENGTH))
    torch.testing.assert_close(criterion(ROWS, STEP), expected)


def test_two_tokenizers_rows_are_compared_as_far_as_both_go() -> None:
    samples, other = rows(), rows(vocabulary=7)
    other = Samples(only_tensor(other.inputs)[:, :5], other.labels[:, :5], None, CPU)
    student, teacher = network(4), network(8, vocabulary=7, seed=1)
    criterion = language_criterion(
        method("uld", label_weight=0.0), student, samples, LanguageTeacher(teacher, FRAMING, LENGTH, other)
    )
    loss = criterion(ROWS, STEP)
    assert 0 < loss.item() <= 1.5 * 2  # two distributions differ by 2 at most
    assert bool(torch.autograd.grad(loss, student.head.weight)[0].isfinite().all())


def test_the_same_seed_writes_the_same_texts_and_moves_no_global_generator() -> None:
    teacher, samples = LanguageTeacher(network(8, seed=1), FRAMING, LENGTH), rows()
    sampling = method("sequence", decoding="sampling")
    state = torch.get_rng_state()
    done: list[int] = []
    first, again = (generate_texts(sampling, teacher, samples, seed=2, after_batch=done.append) for _ in range(2))
    other = generate_texts(sampling, teacher, samples, seed=3, after_batch=done.append)
    assert torch.equal(only_tensor(first.inputs), only_tensor(again.inputs))
    assert not (
        only_tensor(first.inputs).shape == only_tensor(other.inputs).shape
        and torch.equal(only_tensor(first.inputs), only_tensor(other.inputs))
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert done == [4, 4, 4]
    assert only_tensor(first.inputs).shape[1] <= LENGTH
    assert torch.equal(only_tensor(first.inputs)[0, :3], only_tensor(samples.inputs)[0, :3])
    assert first.labels[0].tolist()[:4] == [False, False, False, True]


def test_a_student_writes_in_its_share_of_the_batches() -> None:
    texts, own = loss_of("on-policy", student_share=0.0), loss_of("on-policy", student_share=1.0)
    assert texts == pytest.approx(loss_of("jsd"), rel=1e-12)
    assert own != texts


def test_what_is_written_has_to_fit_behind_a_prompt() -> None:
    check_generation_fits(method("on-policy", max_new_tokens=6), 8)
    with pytest.raises(JobFault, match="rows of 8 tokens"):
        check_generation_fits(method("on-policy", max_new_tokens=7), 8)
