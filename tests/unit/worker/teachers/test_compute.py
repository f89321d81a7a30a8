"""How the teacher is asked: once where its answers fit into memory or files, else in each step; if augmented, about each view."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from service.spec.architectures import CifarResNet, TransformersNetwork
from service.spec.image_augment import Crop
from service.spec.inputs import TokenizerSpec
from service.spec.shapes import InputShape
from worker.data import Data, PixelPreprocessing, Split
from worker.data.augment.choose import epoch_views
from worker.data.preprocessing import Preprocessing
from worker.data.samples import Samples
from worker.data.tensors import Inputs, only_tensor
from worker.data.text.texts import train_text_preprocessing
from worker.data.text.tokenization import NO_TOKEN
from worker.methods import FeatureExtractor
from worker.models import build_network
from worker.targets import Targets
from worker.tasks import TASKS
from worker.teachers import compute
from worker.teachers.cache import TeacherCache

CPU = torch.device("cpu")
Heard = tuple[Mapping[str, Tensor], Tensor | None]
LAYERS = {"layer1": torch.Size((32, 8, 8)), "pool": torch.Size((256, 1, 1))}


@pytest.fixture
def teacher() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(CifarResNet(name="resnet8x4"), input_shape=(1, 8, 8), num_outputs=3)


@pytest.fixture
def samples() -> Samples:
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(300, 1, 8, 8, generator=generator), torch.arange(300) % 3, None, CPU)


@pytest.mark.parametrize("most_bytes", [compute.PRECOMPUTE_BYTES, 0], ids=["once", "in each step"])
def test_features_belong_to_the_samples_that_were_asked_for(
    teacher: torch.nn.Module, samples: Samples, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    monkeypatch.setattr(compute, "PRECOMPUTE_BYTES", most_bytes)
    seen: list[int] = []
    answers = compute.compute_teacher_outputs(teacher, samples, LAYERS, after_batch=seen.append)
    assert seen == [256, 300]

    indices = torch.tensor([299, 0, 17])
    with torch.no_grad(), FeatureExtractor(teacher.eval(), list(LAYERS)) as extractor:
        expected = extractor(only_tensor(samples.inputs)[indices])
    torch.testing.assert_close(answers.logits[indices], expected.logits)
    found, counted = answers.features(indices)
    torch.testing.assert_close(answers(samples.batch(indices)).logits, expected.logits)
    assert (found.keys(), counted) == (LAYERS.keys(), None)
    for path, feature in found.items():
        torch.testing.assert_close(feature, expected.features[path])
        assert not feature.requires_grad


@pytest.mark.parametrize("most_bytes", [compute.PRECOMPUTE_BYTES, 0], ids=["once", "in each step"])
def test_features_of_texts_come_with_the_tokens_that_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    monkeypatch.setattr(compute, "PRECOMPUTE_BYTES", most_bytes)
    texts = ["short"] * 256 + ["a text of more words", "two words"]
    reads = train_text_preprocessing(texts, TokenizerSpec(train="wordpiece", vocab_size=64, max_length=16))
    config = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    torch.manual_seed(0)
    bert = build_network(
        TransformersNetwork(name="transformers", model_type="bert", config=config),
        kind=TASKS["text-classification"].network,
        input_shape=reads.input_shape(texts),
        num_outputs=2,
    )
    prepared = reads.prepare(texts)
    layers = {"bert.encoder.layer.1": torch.Size((4, 8))}
    samples = Samples(prepared, torch.zeros(258, dtype=torch.int64), reads, CPU)
    answers = compute.compute_teacher_outputs(bert, samples, layers, after_batch=lambda done: None)

    indices = torch.tensor([256, 0])
    found, counted = answers.features(indices)
    slot = compute.CacheSlot(TeacherCache(tmp_path), {})
    for _ in range(2):
        in_files = compute.compute_teacher_outputs(bert, samples, layers, after_batch=lambda done: None, slot=slot)
        if most_bytes:
            assert_same(in_files.features(indices), (found, counted))
    used = prepared[indices] != NO_TOKEN
    assert counted is not None
    assert counted.sum(dim=1).tolist() == used.sum(dim=1).tolist()
    with torch.no_grad(), FeatureExtractor(bert.eval(), list(layers)) as extractor:
        alone = extractor(reads(prepared[indices[1:]])).features["bert.encoder.layer.1"]
    torch.testing.assert_close(found["bert.encoder.layer.1"][1][counted[1]], alone[0], atol=1e-5, rtol=1e-5)


def test_asking_moves_nothing_of_the_teacher(teacher: torch.nn.Module, samples: Samples) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    answers = compute.compute_teacher_outputs(teacher, samples, LAYERS, after_batch=lambda done: None)
    answers.features(torch.tensor([1, 2]))
    assert teacher.training, "it is given back in the mode that it came in"
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def assert_same(first: Heard, second: Heard) -> None:
    """Bit for bit."""
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_answers_from_files_are_those_from_memory_bit_for_bit_whatever_their_size(
    teacher: torch.nn.Module, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = compute.compute_teacher_outputs(teacher, samples, LAYERS, after_batch=lambda done: None)
    monkeypatch.setattr(compute, "PRECOMPUTE_BYTES", 0)
    slot, told, seen = compute.CacheSlot(TeacherCache(tmp_path), {}), list[bool](), list[int]()
    indices = torch.tensor([299, 0, 17])
    for _ in range(2):
        in_files = compute.compute_teacher_outputs(
            teacher, samples, LAYERS, after_batch=seen.append, slot=slot, on_start=told.append
        )
        assert torch.equal(in_files.logits, answers.logits)
        assert_same(in_files.features(indices), answers.features(indices))
    assert told == [False, True]
    assert seen == [256, 300], "the second time nobody is asked"


@pytest.mark.parametrize("most_bytes", [compute.PRECOMPUTE_BYTES, 0], ids=["in memory", "in each step"])
def test_where_nothing_can_be_kept_the_answers_are_the_same(
    teacher: torch.nn.Module,
    samples: Samples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    most_bytes: int,
) -> None:
    monkeypatch.setattr(compute, "PRECOMPUTE_BYTES", most_bytes)
    answers = compute.compute_teacher_outputs(teacher, samples, LAYERS, after_batch=lambda done: None)
    (tmp_path / "file").write_text("no folder")
    slot = compute.CacheSlot(TeacherCache(tmp_path / "file"), {})
    in_vain = compute.compute_teacher_outputs(teacher, samples, LAYERS, after_batch=lambda done: None, slot=slot)
    assert "not cached for later jobs" in caplog.text
    assert torch.equal(in_vain.logits, answers.logits)
    assert_same(in_vain.features(torch.tensor([5, 4])), answers.features(torch.tensor([5, 4])))


def augmented(*, count: int | None = None) -> Samples:
    reads = PixelPreprocessing(mean=(0.0,), std=(1.0,))
    split = Split(torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)
    data = Data("image-classification", {"train": split}, Targets.of_classes(["a", "b", "c"]))
    views = epoch_views([Crop(name="crop")], data=data, preprocessing=reads, seed=0, count=count)
    return Samples.of(split, reads, device=CPU, views=views)


@pytest.mark.parametrize("is_cached", [False, True])
def test_views_that_come_again_are_asked_about_once_each(teacher: torch.nn.Module, tmp_path: Path, is_cached: bool) -> None:
    samples, theirs = augmented(count=2), PixelPreprocessing(mean=(0.5,), std=(2.0,))
    cache, told = TeacherCache(tmp_path), list[tuple[int, bool]]()
    for _ in range(2):
        answers = compute.compute_view_outputs(
            teacher,
            samples,
            LAYERS,
            preprocessing=theirs,
            reorder=lambda outputs: outputs[:, [2, 0, 1]],
            num_views=2,
            slot=lambda view: compute.CacheSlot(cache, {"view": view}) if is_cached else None,
            on_start=lambda view, found: told.append((view, found)),
        )
    assert told == [(0, False), (1, False), (0, is_cached), (1, is_cached)]
    everyone = torch.arange(12)
    batches = [samples.batch(everyone, epoch=epoch) for epoch in range(3)]
    assert torch.equal(only_tensor(batches[0].inputs), only_tensor(batches[2].inputs))
    assert not torch.equal(only_tensor(batches[0].inputs), only_tensor(batches[1].inputs))
    for batch in batches:
        said = answers(batch)
        with torch.no_grad(), FeatureExtractor(teacher.eval(), list(LAYERS)) as extractor:
            expected = extractor((only_tensor(batch.inputs) - 0.5) / 2)
        torch.testing.assert_close(said.logits, expected.logits[:, [2, 0, 1]])
        torch.testing.assert_close(said.features["layer1"], expected.features["layer1"])


def test_views_that_fit_nowhere_are_asked_about_in_each_step(teacher: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "PRECOMPUTE_BYTES", 0)
    samples, told = augmented(count=2), list[int]()
    answers = compute.compute_view_outputs(
        teacher,
        samples,
        LAYERS,
        preprocessing=PixelPreprocessing(mean=(0.0,), std=(1.0,)),
        reorder=lambda outputs: outputs,
        num_views=2,
        on_start=lambda view, found: told.append(view),
    )
    assert told == []
    assert answers(samples.batch(torch.tensor([1]), epoch=5)).features.keys() == LAYERS.keys()


def test_a_teacher_is_asked_about_the_view_that_the_student_sees(teacher: torch.nn.Module) -> None:
    samples, theirs = augmented(), PixelPreprocessing(mean=(0.5,), std=(2.0,))
    answers = compute.compute_view_outputs(
        teacher, samples, LAYERS, preprocessing=theirs, reorder=lambda outputs: outputs[:, [2, 0, 1]]
    )
    for epoch in (0, 1):
        batch = samples.batch(torch.tensor([7, 3]), epoch=epoch)
        teacher_outputs = answers(batch)
        with torch.no_grad(), FeatureExtractor(teacher.eval(), list(LAYERS)) as extractor:
            expected = extractor((only_tensor(batch.inputs) - 0.5) / 2)
        torch.testing.assert_close(teacher_outputs.logits, expected.logits[:, [2, 0, 1]])
        assert not teacher_outputs.logits.requires_grad
        for path in LAYERS:
            torch.testing.assert_close(teacher_outputs.features[path], expected.features[path])


class Words(torch.nn.Module):
    """Ids (B, L) and the first pieces (B, Lw) of the words to a row of outputs for each word, (B, Lw, 3)."""

    pad = 0

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(8, 3)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        states: Tensor = self.embedding(inputs["ids"].clamp(min=0))
        return states.gather(1, inputs["first_pieces"].unsqueeze(-1).expand(-1, -1, 3))


@dataclass(frozen=True)
class OfWords(Preprocessing):
    """Cuts a batch after its longest sentence."""

    keeps_size: ClassVar[bool] = False

    def prepare(self, inputs: Any) -> Inputs:
        raise NotImplementedError

    def input_shape(self, inputs: Any) -> InputShape:
        raise NotImplementedError

    def save(self, folder: Path, *, input_shape: InputShape, has_token_types: bool = False) -> None:
        raise NotImplementedError

    def __call__(self, stored: Mapping[str, Tensor]) -> Inputs:
        tokens, words = (int((each >= 0).sum(dim=1).max()) for each in (stored["ids"], stored["first_pieces"]))
        return {"ids": stored["ids"][:, :tokens], "first_pieces": stored["first_pieces"][:, :words].clamp(min=0)}


def test_outputs_for_each_word_of_named_inputs_come_from_memory_and_from_files(tmp_path: Path) -> None:
    none = NO_TOKEN
    ids = torch.tensor([[1, 2, none, none, none]] * 256 + [[3, 4, 5, 6, 7], [2, 1, 3, none, none]])
    first_pieces = torch.tensor([[0, none, none]] * 256 + [[0, 1, 4], [0, 2, none]])
    samples = Samples({"ids": ids, "first_pieces": first_pieces}, torch.zeros(258, 3), OfWords(), CPU)
    torch.manual_seed(0)
    teacher = Words()
    slot = compute.CacheSlot(TeacherCache(tmp_path), {})
    in_memory, written, read = (
        compute.compute_teacher_outputs(teacher, samples, {}, after_batch=lambda done: None, slot=each)
        for each in (None, slot, slot)
    )
    batch = samples.batch(torch.tensor([257, 0, 256]))
    pieces = torch.tensor([[2, 3, 0], [1, 0, 0], [3, 4, 7]])
    for outputs in (in_memory, written, read):
        logits = outputs(batch).logits
        assert logits.shape == (3, 3, 3)  # a row for each word of the longest sentence, not for each of its pieces
        for row, count in enumerate((2, 1, 3)):
            assert torch.equal(logits[row, :count], teacher.embedding.weight[pieces[row, :count]])
