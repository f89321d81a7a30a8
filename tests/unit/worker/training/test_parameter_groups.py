"""Which weights a training changes and how fast: rates by depth in each kind of network, frozen modules, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from service.spec.adapters import Lora
from service.spec.architectures import SmallCnn, TransformersNetwork
from service.spec.shapes import InputShape, TokenShape
from service.spec.training import TrainingSpec
from tests.unit.worker.models.kinds import kind_of
from tests.unit.worker.models.test_build import cifar
from tests.unit.worker.models.test_output_layer import CASES, samples
from tests.unit.worker.preflight.jobs import Recorder, digits, refused
from worker.data.samples import Samples
from worker.distributed.rng import seed_everything
from worker.errors import UnfitTraining
from worker.eval_mode import in_eval_mode
from worker.job.attempt import run
from worker.models import build_network, build_on_meta
from worker.models.adapters import attach
from worker.models.depth import head_weights, inner_model, layer_paths
from worker.models.output_layer import find_output_layer
from worker.models.privileged import PrivilegedNetwork
from worker.protocol import Assignment, Failed, PhaseStarted
from worker.targets import Targets
from worker.tasks import TASKS
from worker.training.checkpoint import read_checkpoint, write_checkpoint
from worker.training.criterion import label_criterion
from worker.training.kept_weights import kept
from worker.training.loop import Training, train
from worker.training.parameter_groups import check_parts, parameter_groups

TARGETS = Targets.of_classes(["a", "b", "c"])
TOKENS = TokenShape(20, 8, pad=1, start=0, end=2)
SIZES = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "num_hidden_layers": 2}
SOUND = {
    "conv_dim": [8],
    "conv_stride": [5],
    "conv_kernel": [10],
    "num_conv_pos_embeddings": 2,
    "num_conv_pos_embedding_groups": 2,
}
STAGES = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 2], "layer_type": "basic"}
STABLE = SIZES | SOUND | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}

DEPTHS: dict[str, tuple[Any, InputShape, list[tuple[str, ...]]]] = {
    "bert": (
        TransformersNetwork(name="transformers", model_type="bert", config=SIZES),
        TOKENS,
        [("classifier", "bert.pooler"), ("bert.encoder.layer.1",), ("bert.encoder.layer.0",), ("bert.embeddings",)],
    ),
    "gpt2": (
        TransformersNetwork(name="transformers", model_type="gpt2", config={"n_layer": 2, "n_embd": 8, "n_head": 2}),
        TOKENS,
        [("score", "transformer.ln_f"), ("transformer.h.1",), ("transformer.h.0",), ("transformer.wte", "transformer.wpe")],
    ),
    "vit": (
        TransformersNetwork(name="transformers", model_type="vit", config=SIZES | {"patch_size": 4}),
        (1, 8, 8),
        [("classifier", "vit.layernorm"), ("vit.layers.1",), ("vit.layers.0",), ("vit.embeddings",)],
    ),
    "resnet": (
        TransformersNetwork(name="transformers", model_type="resnet", config=STAGES),
        (1, 16, 16),
        [("classifier",), ("resnet.encoder.stages.1",), ("resnet.encoder.stages.0",), ("resnet.embedder",)],
    ),
    "wav2vec2, whose last norm is listed before its layers": (
        TransformersNetwork(name="transformers", model_type="wav2vec2", config=STABLE),
        (400,),
        [
            ("classifier", "projector", "wav2vec2.encoder.layer_norm"),
            ("wav2vec2.encoder.layers.1",),
            ("wav2vec2.encoder.layers.0",),
            ("wav2vec2.feature_extractor", "wav2vec2.feature_projection", "wav2vec2.encoder.pos_conv_embed"),
        ],
    ),
    "pvt, whose patches of each stage are listed before all stages": (
        *CASES["pvt"],
        [
            ("classifier", "pvt.encoder.layer_norm"),
            ("pvt.encoder.block.3", "pvt.encoder.patch_embeddings.3"),
            ("pvt.encoder.block.2", "pvt.encoder.patch_embeddings.2"),
            ("pvt.encoder.block.1", "pvt.encoder.patch_embeddings.1"),
            ("pvt.encoder.block.0",),
            ("pvt.encoder.patch_embeddings.0",),
        ],
    ),
    "small-cnn": (
        SmallCnn(name="small-cnn", width=2),
        (1, 8, 8),
        [("classifier",), ("features.4", "features.5"), ("features.0", "features.1")],
    ),
    "resnet20": (cifar("resnet20"), (1, 8, 8), [("fc",), ("layer3",), ("layer2",), ("layer1",), ("conv1", "bn1")]),
}


def build(architecture: Any, shape: InputShape, *, num_outputs: int = 3) -> nn.Module:
    seed_everything(0)
    return build_network(architecture, kind=kind_of(architecture), input_shape=shape, num_outputs=num_outputs)


def some(shape: InputShape) -> Samples:
    return Samples(samples(shape), torch.arange(4) % 3, None, torch.device("cpu"))


def make_training(network: nn.Module, shape: InputShape, **spec: Any) -> Training:
    read = some(shape)
    return Training(
        network,
        phase="teacher",
        samples=read,
        validation=TASKS["image-classification"].validation(read, TARGETS),
        spec=TrainingSpec.model_validate({"epochs": 2, "batch_size": 2, "schedule": {"name": "constant"}} | spec),
        criterion=label_criterion(network, read, TARGETS),
    )


def rates(training: Training) -> dict[str, float]:
    """The learning rate of the next step by the name of the weight, of those that are trained."""
    training.update(training.epoch_batches(0)[:1])
    names = {parameter: name.removeprefix("model.") for name, parameter in training.network.named_parameters()}
    return {names[each]: group["lr"] for group in training.optimizer.param_groups for each in group["params"]}


@pytest.mark.parametrize("name", DEPTHS)
def test_each_layer_learns_at_a_share_of_the_rate_of_the_layer_above_it(name: str) -> None:
    architecture, shape, levels = DEPTHS[name]
    found = rates(
        make_training(build(architecture, shape), shape, layer_decay=0.5, optimizer={"name": "sgd", "learning_rate": 0.8})
    )
    by_module = {
        path: {rate for weight, rate in found.items() if weight.startswith(f"{path}.")} for level in levels for path in level
    }
    assert by_module == {path: {0.8 * 0.5**depth} for depth, level in enumerate(levels) for path in level}


@pytest.mark.parametrize("name", ["bert", "small-cnn"])
def test_the_head_has_its_own_rate_and_follows_the_schedule_in_step(name: str) -> None:
    architecture, shape, _ = DEPTHS[name]
    spec = {
        "optimizer": {"name": "sgd", "learning_rate": 0.2},
        "head_learning_rate": 3.0,
        "schedule": {"name": "linear", "warmup_fraction": 0.5},
    }
    training = make_training(build(architecture, shape), shape, **spec)
    head = {"bert": {"classifier.weight", "classifier.bias"}, "small-cnn": {"classifier.3.weight", "classifier.3.bias"}}[name]
    for warmed_up in (0.5, 1.0, 1.0, 0.5):
        found = rates(training)
        assert {weight for weight, rate in found.items() if rate == 3.0 * warmed_up} == head
        assert {rate for weight, rate in found.items() if weight not in head} == {0.2 * warmed_up}


def test_without_groups_all_weights_learn_in_one() -> None:
    network = build(*DEPTHS["small-cnn"][:2])
    (group,) = parameter_groups(network, TrainingSpec(), some((1, 8, 8)))
    assert (list(group.parameters), group.scale, group.learning_rate) == (list(network.parameters()), 1.0, None)


DRAWN = ("opt", "xlm-roberta", "swiftformer", "shufflenetv2")
"""Of all architectures; the others are left to `make exhaustive`."""
EACH = pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each in DRAWN else pytest.mark.exhaustive) for each in CASES]
)


@EACH
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_every_architecture_has_layers_and_the_layer_of_its_outputs_is_its_head(name: str) -> None:
    network, shape = build(*CASES[name]), CASES[name][1]
    assert layer_paths(network)
    head = set(head_weights(network))
    assert all(
        parameter in head for layer in find_output_layer(network, samples(shape)).layers for parameter in layer.parameters()
    )
    groups = parameter_groups(network, TrainingSpec(layer_decay=0.5), some(shape))
    assert sorted(group.scale for group in groups) == [0.5**depth for depth in reversed(range(len(groups)))]
    assert len(groups) > 2
    assert head <= {parameter for group in groups if group.scale == 1 for parameter in group.parameters}


FROZEN = {
    "bert": (*DEPTHS["bert"][:2], ["bert.embeddings", "bert.encoder.layer.*"], ("bert.embeddings.", "bert.encoder.layer.")),
    "resnet": (*DEPTHS["resnet"][:2], ["*.normalization"], ("resnet.embedder.embedder.normalization.",)),
    "levit": (*CASES["levit"], ["levit"], ("levit.",)),
    "small-cnn": (*DEPTHS["small-cnn"][:2], ["features"], ("features.",)),
}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_module_comes_out_as_it_went_in_and_keeps_no_state(name: str, optimizer: str) -> None:
    architecture, shape, paths, prefixes = FROZEN[name]
    network = build(architecture, shape)
    before = kept(network)
    training = make_training(network, shape, freeze=paths, optimizer={"name": optimizer, "learning_rate": 0.5})
    result = train(training, Silent())

    frozen = {each for each in before if each.removeprefix("model.").startswith(prefixes)}
    assert result.last is not None
    changed = {each for each, weight in result.last.items() if not torch.equal(weight, before[each])}
    assert frozen
    assert not frozen & changed
    assert any("classifier" in each for each in changed)
    learning = {each: parameter for each, parameter in network.named_parameters() if parameter.requires_grad}
    assert not frozen & learning.keys()
    assert set(training.optimizer.state) == set(learning.values())


@EACH
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_frozen_layers_of_every_architecture_come_out_as_they_went_in(name: str) -> None:
    architecture, shape = CASES[name]
    network = build(architecture, shape)
    there = {path for path, module in inner_model(network).named_modules() if next(module.parameters(), None) is not None}
    paths = [path for path in layer_paths(network) if path in there] or ["features"]
    before = kept(network)
    last = train(make_training(network, shape, freeze=paths, optimizer={"name": "sgd", "learning_rate": 0.1}), Silent()).last
    assert last is not None
    inside = [each for each in before if each.removeprefix("model.").startswith(tuple(f"{path}." for path in paths))]
    assert inside
    assert all(torch.equal(last[each], before[each]) for each in inside)
    assert any(not torch.equal(last[each], weight) for each, weight in before.items())


def test_norms_of_other_modules_and_dropout_of_all_stay_in_training_mode() -> None:
    network = build(*DEPTHS["resnet"][:2])
    training = make_training(network, (1, 16, 16), freeze=["resnet.encoder.stages.0"])
    training.train_mode()
    with in_eval_mode(network):
        assert not any(module.training for module in network.modules())
    norms = {path: module.training for path, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms == {path: "stages.0" not in path for path in norms}

    network = build(*DEPTHS["bert"][:2])
    training = make_training(network, TOKENS, freeze=["bert"])
    training.train_mode()
    assert all(module.training for module in network.modules() if isinstance(module, nn.Dropout))


def test_norms_of_the_body_of_an_adapter_stay_in_evaluation_mode_and_as_they_are() -> None:
    network = build(*DEPTHS["resnet"][:2])
    attach(network, Lora(name="lora", rank=2), new_weights=["classifier.1.weight", "classifier.1.bias"])
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    train(make_training(network, (1, 16, 16), layer_decay=0.5, head_learning_rate=1.0), Silent())
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    with pytest.raises(UnfitTraining, match="was made anew"):
        check_parts(network, TrainingSpec(freeze=["classifier"]), made=["classifier.1.weight", "classifier.1.bias"])


def test_a_training_with_groups_goes_on_from_its_state_as_if_never_interrupted(tmp_path: Path) -> None:
    architecture, shape, _ = DEPTHS["resnet"]

    def make() -> Training:
        training = make_training(
            build(architecture, shape), shape, freeze=["resnet.embedder"], layer_decay=0.5, head_learning_rate=0.1
        )
        training.train_mode()
        return training

    whole = make()
    batches = whole.epoch_batches(0)
    whole.update(batches[:1])
    write_checkpoint(tmp_path / "state", whole.state())
    whole.update(batches[1:])
    resumed = make()
    resumed.restore(read_checkpoint(tmp_path / "state"))
    resumed.update(batches[1:])
    expected, found = kept(whole.network), kept(resumed.network)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_an_embedding_that_is_the_output_layer_too_is_no_head() -> None:
    architecture = TransformersNetwork(name="transformers", model_type="gpt2", config={"n_layer": 1, "n_embd": 8, "n_head": 2})
    network = build_network(architecture, kind=TASKS["causal-lm"].network, input_shape=TOKENS, num_outputs=0)
    with pytest.raises(UnfitTraining, match="its embedding is the output layer too") as caught:
        check_parts(network, TrainingSpec(head_learning_rate=1.0))
    assert caught.value.field == "head_learning_rate"
    untied = TransformersNetwork(
        name="transformers",
        model_type="gpt2",
        config={"n_layer": 1, "n_embd": 8, "n_head": 2, "tie_word_embeddings": False},
    )
    network = build_network(untied, kind=TASKS["causal-lm"].network, input_shape=TOKENS, num_outputs=0)
    (head,) = [
        group for group in parameter_groups(network, TrainingSpec(head_learning_rate=1.0), some(TOKENS)) if group.learning_rate
    ]
    assert len(head.parameters) == 1


def test_an_encoder_has_no_head_and_its_last_layer_is_on_top() -> None:
    architecture, shape, _ = DEPTHS["bert"]
    network = build_network(architecture, kind=TASKS["sentence-embedding"].network, input_shape=shape, num_outputs=0)
    with pytest.raises(UnfitTraining, match="no output layer"):
        check_parts(network, TrainingSpec(head_learning_rate=1.0))
    groups = parameter_groups(network, TrainingSpec(layer_decay=0.5), some(shape))
    assert [group.scale for group in groups] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"freeze": ["bert.pooler", "bert.encoder.layers.0"]}, "freeze/1", r"'bert.encoder' there are bert.encoder.layer$"),
        ({"freeze": ["layer.*"]}, "freeze/0", "there are bert, classifier$"),
        ({"freeze": ["bert.embeddings.dropout"]}, "freeze/0", "'bert.embeddings' there are bert.embeddings.word_embeddings, "),
        ({"freeze": ["bert", "class*"]}, "freeze", "none is left to train"),
        ({"freeze": ["*"]}, "freeze", "none is left to train"),
    ],
)
def test_a_module_that_is_not_there_and_a_network_without_a_weight_to_train_are_refused(
    spec: dict[str, Any], field: str, message: str
) -> None:
    architecture, shape, _ = DEPTHS["bert"]
    on_meta = build_on_meta(architecture, kind=kind_of(architecture), input_shape=shape, num_outputs=3)
    for refuse in (
        lambda: check_parts(on_meta, TrainingSpec.model_validate(spec)),
        lambda: make_training(build(architecture, shape), shape, **spec),
    ):
        with pytest.raises(UnfitTraining, match=message) as caught:
            refuse()
        assert caught.value.field == field


def test_layers_of_a_network_without_any_are_refused() -> None:
    with pytest.raises(UnfitTraining, match="no list of layers") as caught:
        check_parts(nn.Sequential(nn.Linear(2, 2)), TrainingSpec(layer_decay=0.9))
    assert caught.value.field == "layer_decay"


def test_a_distillation_network_is_named_as_the_plain_student_that_comes_out_of_it() -> None:
    body = build(*DEPTHS["small-cnn"][:2], num_outputs=6)
    network = PrivilegedNetwork(body, TARGETS, extra_input=True)
    training = make_training(network, (1, 8, 8), freeze=["features.0"], head_learning_rate=0.5, layer_decay=0.5)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"body.features.0.weight"}
    found = {name: rate / 0.003 for name, rate in rates(training).items()}
    assert found["body.classifier.3.weight"] == pytest.approx(0.5 / 0.003)
    assert (found["reader.weight"], found["body.features.4.weight"]) == (1.0, 0.5)


VIT = {"name": "transformers", "model_type": "vit", "config": SIZES | {"patch_size": 4}}


@pytest.mark.parametrize("most_bytes", [None, 0], ids=["tried", "looked at as shapes"])
def test_a_module_that_is_not_there_is_refused_before_the_job_waits(tmp_path: Path, most_bytes: int | None) -> None:
    document = digits(student={"architecture": VIT}, training={"freeze": ["vit.embeddings", "vit.encoder"]})
    refusal = refused(document, tmp_path, most_bytes=most_bytes)
    assert refusal.details["pointer"] == "/training/freeze/1"
    assert refusal.message == (
        "The student cannot be trained as the spec says: no module with weights is named 'vit.encoder'; "
        "in 'vit' there are vit.embeddings, vit.layers, vit.layernorm."
    )


@pytest.mark.parametrize("most_bytes", [None, 0], ids=["tried", "looked at as shapes"])
def test_what_the_optimizer_and_the_savings_of_memory_refuse_is_refused_there_too(tmp_path: Path, most_bytes: int | None) -> None:
    resnet = {"name": "transformers", "model_type": "resnet", "config": STAGES}
    for field, value, place in (("optimizer", {"name": "muon"}, "optimizer/name"), ("micro_batch", 1, "micro_batch")):
        refusal = refused(digits(student={"architecture": resnet}, training={field: value}), tmp_path, most_bytes=most_bytes)
        assert refusal.details["pointer"] == f"/training/{place}"


@pytest.mark.parametrize(
    ("training", "place"),
    [
        ({"layer_decay": 0.9, "freeze": ["nothing"]}, "freeze/0"),
        ({"optimizer": {"name": "muon"}}, "optimizer/name"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing"),
    ],
)
def test_a_job_that_nobody_checked_ends_before_its_teacher_is_trained(
    tmp_path: Path, training: dict[str, Any], place: str
) -> None:
    recorder = Recorder()
    run(Assignment("job_test", digits(training=training), tmp_path, num_threads=1), recorder)
    last = recorder.events[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.details["pointer"]) == ("invalid_spec", f"/training/{place}")
    assert not [event for event in recorder.events if isinstance(event, PhaseStarted) and event.phase == "teacher"]


class Silent:
    """Does nothing between the steps."""

    def on_step_end(self, training: Training) -> None:
        pass
