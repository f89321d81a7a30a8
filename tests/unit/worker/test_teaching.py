"""How the teacher is asked: once where its answers fit into memory, else in each step; of augmented samples, about each view."""

import pytest
import torch

from service.spec.architectures import CifarResNet
from service.spec.augment import Crop
from worker import teaching
from worker.data import Data, PixelPreprocessing, Split
from worker.data.augment import epoch_views
from worker.methods import Tap
from worker.models import build_network
from worker.samples import Samples
from worker.targets import Targets

CPU = torch.device("cpu")
LAYERS = {"layer1": torch.Size((32, 8, 8)), "pool": torch.Size((256, 1, 1))}


@pytest.fixture
def teacher() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(CifarResNet(name="resnet8x4"), input_shape=(1, 8, 8), num_outputs=3)


@pytest.fixture
def samples() -> Samples:
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(300, 1, 8, 8, generator=generator), torch.arange(300) % 3, None, CPU)


@pytest.mark.parametrize("most_bytes", [teaching.ASK_ONCE_BYTES, 0], ids=["once", "in each step"])
def test_features_belong_to_the_samples_that_were_asked_for(
    teacher: torch.nn.Module, samples: Samples, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    monkeypatch.setattr(teaching, "ASK_ONCE_BYTES", most_bytes)
    seen: list[int] = []
    logits, features = teaching.ask(teacher, samples, LAYERS, after_batch=seen.append)
    assert seen == [256, 300]

    indices = torch.tensor([299, 0, 17])
    with torch.no_grad(), Tap(teacher.eval(), list(LAYERS)) as tap:
        expected = tap(samples.inputs[indices])
    torch.testing.assert_close(logits[indices], expected.logits)
    assert features(indices).keys() == LAYERS.keys()
    for path, feature in features(indices).items():
        torch.testing.assert_close(feature, expected.features[path])
        assert not feature.requires_grad


def test_asking_moves_nothing_of_the_teacher(teacher: torch.nn.Module, samples: Samples) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    _, features = teaching.ask(teacher, samples, LAYERS, after_batch=lambda done: None)
    features(torch.tensor([1, 2]))
    assert teacher.training, "it is given back in the mode that it came in"
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_a_teacher_is_asked_about_the_view_that_the_student_sees(teacher: torch.nn.Module) -> None:
    ours, theirs = PixelPreprocessing(mean=(0.0,), std=(1.0,)), PixelPreprocessing(mean=(0.5,), std=(2.0,))
    split = Split(torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)
    data = Data("image-classification", {"train": split}, Targets.of_classes(["a", "b", "c"]))
    views = epoch_views([Crop(name="crop")], data=data, preprocessing=ours, seed=0)
    samples = Samples.of(split, ours, device=CPU, views=views)
    answers = teaching.ask_each_view(
        teacher, samples, LAYERS, preprocessing=theirs, in_order=lambda outputs: outputs[:, [2, 0, 1]]
    )
    asked = teaching.Teaching(lambda step: step.student.logits.sum(), answers=answers)

    for epoch in (0, 1):
        batch = samples.batch(torch.tensor([7, 3]), epoch=epoch)
        taught = asked.taught(batch)
        with torch.no_grad(), Tap(teacher.eval(), list(LAYERS)) as tap:
            expected = tap((batch.inputs - 0.5) / 2)
        assert taught is not None
        torch.testing.assert_close(taught.logits, expected.logits[:, [2, 0, 1]])
        assert not taught.logits.requires_grad
        for path in LAYERS:
            torch.testing.assert_close(taught.features[path], expected.features[path])
