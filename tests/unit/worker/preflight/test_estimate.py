"""Memory and steps against what can be reckoned by hand."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from service.spec import JobSpec, parse_spec
from service.spec.training import TrainingSpec
from tests.unit.worker.preflight.jobs import digits, estimate
from worker.data.epoch import count_steps
from worker.data.samples import Samples
from worker.evaluation.precision import choose_precision
from worker.fake_tensors import with_fake_tensors
from worker.models.loading import Loading
from worker.models.quantised import quantise
from worker.preflight.estimate import (
    CONTEXT_BYTES,
    GIB,
    PROCESS_BYTES,
    InferenceProfile,
    Profile,
    memory_bytes,
    memory_parts,
    num_ranks,
)
from worker.preflight.profile import Chunk, LiveBytes, StepProfile, profile_inference, profile_on_meta, size_of
from worker.preflight.profile import profile_step as profile_step_of
from worker.targets import Targets
from worker.tasks import TASKS
from worker.training.criterion import label_criterion
from worker.training.loop import Training

TARGETS = Targets.of_classes(["a", "b", "c"])
FLOAT = 4


def training(network: nn.Module, *, num_samples: int = 2, **spec: object) -> Training:
    samples = Samples(torch.randn(num_samples, 20), torch.arange(num_samples) % 3, None, torch.device("cpu"))
    return Training(
        network,
        phase="student",
        samples=samples,
        validation=TASKS["image-classification"].validation(samples, TARGETS),
        spec=TrainingSpec.model_validate(spec),
        criterion=label_criterion(network, samples, TARGETS),
    )


def profile_step(made: Training, *, batch: int = 2, chunk: Chunk | None = None) -> StepProfile:
    return profile_step_of(made, batch=batch, whole=batch, chunk=chunk)


def test_a_steps_weights_gradients_and_moments_are_counted_exactly_and_its_activations_nearly() -> None:
    network = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 3))
    step = profile_step(training(network), batch=10_000)
    weights = (20 * 400 + 400 + 400 * 3 + 3) * FLOAT
    assert (step.weights, step.gradients, step.optimizer, step.update // weights) == (weights, weights, 2 * weights, 0)
    # Where a batch is large: the inputs, what ReLU gives, its gradient beside the gradient of that, and the logits.
    live = 2 * (20 + 3 * 400 + 3) * FLOAT
    assert 0.6 * live <= step.passes.growing + step.passes.by_loss <= 1.2 * live
    assert step.exchanged == 2 * (3 * FLOAT + 2 * 8), "logits, labels and places"
    assert step.passes.by_loss <= 2 * 10 * FLOAT, "what the loss keeps of the logits"
    small = profile_step(training(network))
    assert small.passes.gradients + small.passes.fixed >= 400 * 20 * FLOAT, "gradients take more than so few samples"
    # Forward; backward twice that, but for the gradient of the inputs.
    products = 2 * (20 * 400 + 400 * 3)
    assert step.flops == 2 * (3 * products - 2 * 20 * 400)


def test_what_is_alive_at_once_is_what_python_holds() -> None:
    class Doubling(nn.Linear):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            wide = super().forward(given)
            del given
            return torch.cat([wide, wide], dim=1)[:, :100]

    step = profile_step(training(nn.Sequential(Doubling(20, 100), nn.Linear(100, 3))), batch=10_000)
    # The inputs, the wide results and their doubles; the view of these has no memory of its own.
    assert step.passes.growing == pytest.approx(2 * (20 + 100 + 200) * FLOAT, rel=0.5)


def test_outputs_of_which_a_chunk_is_there_at_once_grow_up_to_the_chunk() -> None:
    network = nn.Sequential(nn.Linear(20, 7), nn.Linear(7, 3))
    step = profile_step(training(network), batch=100, chunk=Chunk(width=3, rows=8))
    assert step.passes.in_chunks >= 2 * 3 * FLOAT
    assert (step.passes.chunk_rows, step.passes.most_rows) == (2, 8)
    alone = LiveBytes(in_chunks=step.passes.in_chunks, chunk_rows=2, most_rows=8)
    assert alone.bytes_of(3, whole=3) == 3 * alone.in_chunks
    assert alone.bytes_of(50, whole=50) == alone.bytes_of(4, whole=4) == 4 * alone.in_chunks


def test_layers_that_compute_twice_keep_less_in_a_real_step_and_as_shapes() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 256, "vocab_size": 50}
    inputs, precision = torch.ones(2, 16, dtype=torch.long), choose_precision("fp32", torch.device("cpu"))
    counted: dict[tuple[bool, bool], int] = {}
    for recomputes in (False, True):
        for is_real in (False, True):
            with torch.device("cpu" if is_real else "meta"):
                network = BertModel(BertConfig(**sizes), add_pooling_layer=False)
            if recomputes:
                network.activation_checkpointing_enable({"use_reentrant": False})
            with nullcontext() if is_real else with_fake_tensors(network):
                given = inputs if is_real else torch.zeros(2, 16, dtype=torch.long)
                step = profile_on_meta(
                    network,
                    given,
                    TrainingSpec().optimizer,
                    precision,
                    forward=lambda network, ids: network(ids).last_hidden_state,
                    batch=1000,
                    whole=1000,
                )
            counted[recomputes, is_real] = step.passes.growing
    assert counted[True, False] < 0.6 * counted[False, False]
    for recomputes in (False, True):
        assert counted[recomputes, False] == pytest.approx(counted[recomputes, True], rel=0.1)


def test_an_optimizer_that_makes_more_than_its_moments_is_counted() -> None:
    network = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 3))
    assert profile_step(training(network, optimizer={"name": "adafactor"})).update >= 400 * 20 * FLOAT


def test_what_is_frozen_has_neither_gradients_nor_moments() -> None:
    step = profile_step(training(nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 3)), freeze=["0"]))
    head = (400 * 3 + 3) * FLOAT
    assert (step.weights, step.gradients, step.optimizer) == ((20 * 400 + 400) * FLOAT + head, head, 2 * head)
    assert step.flops == 2 * 2 * (20 * 400 + 400 * 3 + 400 * 3), "two passes forward, and the head's gradient"


def test_what_is_frozen_of_a_network_that_is_looked_at_as_shapes_has_no_backward_pass(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 4}
    vit = {"architecture": {"name": "transformers", "model_type": "vit", "config": sizes}}
    whole, frozen = (
        estimate(digits(student=vit, training=each), tmp_path, most_bytes=0).flops["student"]
        for each in ({"max_steps": 1}, {"max_steps": 1, "freeze": ["vit"]})
    )
    assert frozen * 2.5 < whole < frozen * 3


def test_plain_sgd_with_momentum_keeps_one_moment() -> None:
    network = nn.Linear(20, 3)
    assert profile_step(training(network, optimizer={"name": "sgd"})).optimizer == 63 * FLOAT


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor", "adamw-8bit"])
def test_an_optimizers_state_is_reckoned_without_a_step_as_it_is_with_one(name: str) -> None:
    network = nn.Sequential(nn.Unflatten(1, (1, 4, 5)), nn.Conv2d(1, 6, (2, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(54, 3))
    network[4].weight.requires_grad_(name != "sgd")
    taken = training(network, optimizer={"name": name})
    precision, inputs = choose_precision("fp32", torch.device("cpu")), torch.randn(2, 20)
    reckoned = profile_on_meta(network, inputs, taken.spec.optimizer, precision, forward=nn.Module.__call__, batch=2, whole=2)
    assert reckoned.optimizer == profile_step(taken).optimizer > 0


def test_weights_that_are_cast_for_the_forward_pass_do_not_grow_with_the_batch() -> None:
    network = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 3))
    step = profile_step(training(network, precision="bf16"), batch=10_000)
    assert step.passes.fixed + step.passes.gradients < 2 * (20 + 3 + 1) * 400 * FLOAT
    assert step.passes.growing < 2 * (20 + 3 * 400 + 10) * FLOAT


def test_tied_weights_are_held_once() -> None:
    network = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    network[1].weight = network[0].weight
    assert size_of(network) == 64 * FLOAT


def test_a_network_that_answers_holds_a_layers_input_and_output_at_once() -> None:
    network = nn.Sequential(nn.Linear(20, 400, bias=False), nn.Linear(400, 400, bias=False), nn.Linear(400, 3, bias=False))
    assert profile_inference(network, torch.randn(2, 20)) == (20 + 2 * 400) * FLOAT


STEP = StepProfile(
    num_samples=2,
    flops=1,
    weights=100,
    per_dataset_sample=0.0,
    gradients=100,
    optimizer=200,
    passes=LiveBytes(fixed=105, growing=20),
    update=0,
    exchanged=4,
)
TRIED = Profile(
    TrainingSpec(batch_size=64),
    STEP,
    network=InferenceProfile(100, 1.0, 0),
    resident={"teacher": InferenceProfile(1000, 2.0, 0)},
    runs_each_step=False,
    data=0.0,
    num_samples=10_000,
    kept=7,
)


def test_memory_is_the_sum_of_what_is_there_at_once() -> None:
    def bytes_of(profiles: Profile, num_ranks: int = 1) -> float:
        return memory_bytes(profiles, num_ranks=num_ranks, on_gpu=False) - PROCESS_BYTES

    beside = 1000 + 100 + 200 + 7  # teacher, student, moments, and the best weights
    assert bytes_of(TRIED) == beside + 105 + 640
    assert bytes_of(TRIED, num_ranks=4) == beside + 100 + 512 + 7, (
        "asking takes more than training then, beside the place of the gradients and the last weights"
    )
    several = replace(TRIED, step=replace(STEP, passes=LiveBytes(fixed=105, growing=380, by_loss=20)))
    assert bytes_of(several) == beside + 105 + 200 * 64
    assert bytes_of(several, num_ranks=4) == beside + 105 + 100 + 190 * 16 + 10 * 64 + 2 * 64, (
        "each rank takes the loss of the whole batch, and has a place for all gradients"
    )
    assert memory_bytes(TRIED, num_ranks=1) == pytest.approx(1.1 * (bytes_of(TRIED) - 7) + CONTEXT_BYTES)
    assert bytes_of(replace(TRIED, evaluation_batch=16, num_samples=16)) == beside + 105 + 160, (
        "a batch is no larger than the data"
    )
    divided = replace(several, spec=TrainingSpec(batch_size=64, micro_batch=8))
    assert bytes_of(divided) == beside + 105 + 100 + 190 * 8 + 10 * 64, "the loss may be of the whole batch"
    begun = replace(divided, step=replace(divided.step, passes=replace(divided.step.passes, gradients=80, fixed=25)))
    assert bytes_of(begun) == bytes_of(divided) - 80, "gradients that are there already count once"
    least = replace(several, spec=TrainingSpec(batch_size=64, micro_batch=1))
    automatic = replace(several, spec=TrainingSpec(batch_size=64, micro_batch="auto"))
    assert bytes_of(automatic) == bytes_of(least) < bytes_of(divided)  # a job needs what it can make do with
    assert bytes_of(replace(TRIED, runs_each_step=True)) == bytes_of(TRIED) + 128
    assert bytes_of(replace(TRIED, step=replace(STEP, update=5000))) == beside + 100 + 5000, "an update may take the most"
    assert bytes_of(replace(TRIED, data=500.0)) == bytes_of(TRIED) + 500
    assert bytes_of(replace(TRIED, data=1e12)) == bytes_of(TRIED), "such data stay on the host"


@pytest.mark.parametrize(
    "spec",
    [
        {"epochs": 3, "batch_size": 4},
        {"epochs": 2, "batch_size": 4, "gradient_accumulation": 2},
        {"max_steps": 5, "batch_size": 4},
        {"epochs": 1, "batch_size": 100},
        {"epochs": 2, "batch_size": 7, "gradient_accumulation": 3},
    ],
)
@pytest.mark.parametrize("num_samples", [2, 13, 29])
def test_steps_are_counted_as_the_training_counts_them(spec: dict[str, int], num_samples: int) -> None:
    made = training(nn.Linear(20, 3), num_samples=num_samples, **spec)
    assert count_steps(made.spec, num_samples) == made.last_step


@pytest.mark.parametrize(
    ("resources", "alone", "expected"), [({}, {}, 1), ({"gpus": 4}, {"gpus": 1}, 4), ({"cpu_slots": 3}, {}, 3)]
)
def test_a_batch_is_shared_by_all_processes(
    tmp_path: Path, resources: dict[str, int], alone: dict[str, int], expected: int
) -> None:
    def bytes_beside_context(resources: dict[str, int]) -> float:
        document = digits(resources=resources, training={"epochs": 1, "batch_size": 1024})
        return estimate(document, tmp_path).memory_by_training_gib["student"] * GIB - (
            CONTEXT_BYTES if "gpus" in resources else PROCESS_BYTES
        )

    spec: JobSpec = parse_spec(digits(resources=resources))
    assert num_ranks(spec) == expected
    whole, share = bytes_beside_context(alone), bytes_beside_context(resources)
    if expected == 1:
        assert share == whole
    else:  # what is kept of the samples is most of it; the weights, and what loss and ranks exchange of the whole, stay
        assert whole / expected < share < 0.6 * whole


def test_the_parts_of_a_trainings_memory_are_its_memory() -> None:
    parts = memory_parts(replace(TRIED, data=500.0), num_ranks=1)
    assert sum(parts.values()) == pytest.approx(memory_bytes(replace(TRIED, data=500.0), num_ranks=1))
    step = TRIED.step
    assert (parts["optimizer"], parts["gradients"], parts["data"]) == (step.optimizer, step.gradients, 500.0)
    assert parts["activations"] == 640 + 5
    assert parts["weights"] == step.weights + step.per_dataset_sample * TRIED.num_samples
    assert parts["device"] >= CONTEXT_BYTES
    assert memory_parts(TRIED, num_ranks=1, on_gpu=False)["device"] == PROCESS_BYTES


def test_what_is_a_teachers_in_memory_counts_once() -> None:
    teacher, student = nn.Linear(20, 3), nn.Linear(20, 3)
    student.weight = teacher.weight
    assert size_of(student, beside=[teacher]) == 3 * FLOAT
    assert size_of(student, beside=[nn.Linear(20, 3)]) == size_of(student) == 63 * FLOAT


def test_a_quantised_network_has_the_size_of_its_integers() -> None:
    network = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
    quantise(network, Loading("int8"))
    integers, scales = 64 * 64, 64 * (4 + 1)
    assert size_of(network) == integers + scales + 2 * 64 * 64, "the output layer stays in bf16"
    per_sample = profile_inference(network, torch.randn(2, 64).bfloat16())
    assert 2 * 64 * 2 <= per_sample <= 64 * 64 * 4, "activations, and perhaps one weight in bf16"
