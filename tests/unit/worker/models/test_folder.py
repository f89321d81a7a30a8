"""Networks as folders: written, read again elsewhere, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoImageProcessor, ViTConfig, ViTForImageClassification, ViTModel

from service.spec.architectures import CifarResNet, SmallCnn
from tests.interpreter import Interpreter
from tests.unit.worker.models.kinds import kind_of
from tests.unit.worker.models.test_build import cifar, tiny
from worker.data import PixelPreprocessing
from worker.data.images.pixel_range import PixelRange
from worker.models import UnreadableNetwork, build_network, save_network
from worker.targets import Targets
from worker.tasks import load_network

CLASSES = ["ant", "bee", "cat"]
EIGHT_BIT = PixelPreprocessing(mean=(0.3, 0.4, 0.5), std=(0.2, 0.25, 0.3), rescale_factor=1 / 255, pixels=PixelRange(0.0, 255.0))
GREY = PixelPreprocessing(mean=(0.3,), std=(0.4,), rescale_factor=1 / 16, pixels=PixelRange(0.0, 16.0))
CENTRED = PixelPreprocessing(mean=(5.0, 6.0), std=(2.0, 3.0), pixels=PixelRange(-3.0, 12.5, is_measured=True))

LOAD_OWN = """
import json, pathlib, sys, numpy, torch
from worker.tasks import load_network
answers = []
for folder in sys.argv[1:]:
    loaded = load_network(pathlib.Path(folder))
    with torch.no_grad():
        logits = loaded.network(loaded.preprocessing(torch.from_numpy(numpy.load(folder + ".npy"))))
    answers.append([loaded.classes, logits.tolist()])
json.dump(answers, sys.stdout)
"""
LOAD_TRANSFORMERS = """
import json, sys, numpy, torch
from transformers import AutoImageProcessor, AutoModelForImageClassification
answers = []
for folder in sys.argv[1:]:
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    images = list(numpy.load(folder + ".npy").transpose(0, 2, 3, 1))
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    with torch.no_grad():
        logits = model(pixel_values=pixels).logits
    answers.append([[model.config.id2label[index] for index in range(3)], logits.tolist()])
assert sys.modules["worker"] is None and sys.modules["service"] is None
json.dump(answers, sys.stdout)
"""


def saved(
    tmp_path: Path, architecture: Any, input_shape: tuple[int, int, int], preprocessing: PixelPreprocessing
) -> tuple[Any, Path]:
    """A network and its folder."""
    network = build_network(architecture, kind=kind_of(architecture), input_shape=input_shape, num_outputs=3)
    # Statistics of batch norm that are not those of a fresh network.
    network.train()(torch.rand(8, *input_shape))
    save_network(network.eval(), tmp_path / "student", preprocessing=preprocessing, targets=Targets.of_classes(CLASSES))
    return network, tmp_path / "student"


@pytest.mark.parametrize(
    ("script", "grey", "colour"),
    [
        (LOAD_OWN, SmallCnn(name="small-cnn", width=4), CifarResNet(name="resnet20")),
        (LOAD_TRANSFORMERS, tiny("vit"), tiny("resnet")),
    ],
    ids=["own", "transformers"],
)
def test_saved_students_give_the_same_logits_in_a_fresh_process(
    libraries_alone: Interpreter, tmp_path: Path, script: str, grey: Any, colour: Any
) -> None:
    folders, expected = [], []
    for name, architecture, input_shape, preprocessing in (
        ("grey", grey, (1, 8, 8), GREY),
        ("colour", colour, (3, 12, 8), EIGHT_BIT),
    ):
        network, folder = saved(tmp_path / name, architecture, input_shape, preprocessing)
        images = np.random.default_rng(0).integers(0, 17, size=(5, *input_shape), dtype=np.uint8)
        np.save(f"{folder}.npy", images)
        with torch.no_grad():
            expected.append(network(preprocessing(torch.from_numpy(images))))
        folders.append(str(folder))
    if script is LOAD_OWN:
        command, project = [sys.executable, "-c", script, *folders], Path(__file__).parents[4]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=project).stdout
    else:
        said = libraries_alone.run(script, *folders, folder=tmp_path)
    for (classes, logits), wanted in zip(json.loads(said), expected, strict=True):
        assert classes == CLASSES
        torch.testing.assert_close(torch.tensor(logits), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "input_shape", "preprocessing"),
    [
        (SmallCnn(name="small-cnn", width=4), (1, 8, 8), GREY),
        (CifarResNet(name="resnet8x4"), (3, 12, 8), EIGHT_BIT),
        (cifar("wrn-16-2"), (1, 8, 8), GREY),
        (cifar("vgg8"), (3, 12, 8), EIGHT_BIT),
        (cifar("mobilenetv2"), (1, 8, 8), GREY),
        (cifar("shufflenetv1"), (3, 12, 8), EIGHT_BIT),
        (cifar("shufflenetv2"), (1, 8, 8), GREY),
        (tiny("vit"), (1, 8, 8), GREY),
        (tiny("resnet"), (3, 12, 8), EIGHT_BIT),
        (tiny("deit"), (2, 8, 12), CENTRED),
    ],
)
def test_a_saved_network_is_read_and_saved_again_bit_for_bit(
    tmp_path: Path, architecture: Any, input_shape: tuple[int, int, int], preprocessing: PixelPreprocessing
) -> None:
    network, folder = saved(tmp_path, architecture, input_shape, preprocessing)
    loaded = load_network(folder)
    assert (loaded.classes, loaded.input_shape, loaded.preprocessing) == (CLASSES, input_shape, preprocessing)
    assert not loaded.network.training
    images = torch.rand(4, *input_shape)
    with torch.no_grad():
        assert torch.equal(loaded.network(images), network(images))
    save_network(loaded.network, tmp_path / "again", preprocessing=loaded.preprocessing, targets=loaded.targets)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "labels.json", "model.safetensors", "preprocessor_config.json"]
    assert all((folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("eight_bit", [True, False])
def test_the_image_processor_of_the_folder_gives_the_pixels_that_the_network_was_trained_on(
    tmp_path: Path, channels: int, eight_bit: bool
) -> None:
    factor = 1 / 255 if eight_bit else 1.0
    preprocessing = PixelPreprocessing(mean=(0.4,) * channels, std=(0.3,) * channels, rescale_factor=factor)
    _, folder = saved(tmp_path, tiny("vit"), (channels, 8, 12), preprocessing)
    images = torch.rand(3, channels, 8, 12)
    if eight_bit:
        images = (images * 255).to(torch.uint8)
    processor = AutoImageProcessor.from_pretrained(folder)
    arrays = list(images.permute(0, 2, 3, 1).numpy())
    pixels = processor(arrays, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    torch.testing.assert_close(pixels, preprocessing(images), atol=1e-5, rtol=1e-5)


def uploaded(folder: Path, **config: Any) -> Path:
    """A plain folder of the library's own making."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 4}
    labels = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: index for index, name in enumerate(CLASSES)}}
    ViTForImageClassification(ViTConfig(**{**sizes, "image_size": 8, **labels, **config})).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}, "image_mean": [0.1, 0.2, 0.3]}
        )
    )
    return folder


def test_any_image_classifier_of_the_library_is_read(tmp_path: Path) -> None:
    loaded = load_network(uploaded(tmp_path / "vit"))
    assert (loaded.classes, loaded.input_shape) == (CLASSES, (3, 8, 8))
    # What the file does not say is the processor class's own default.
    expected = PixelPreprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5), rescale_factor=1 / 255)
    images = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8)
    torch.testing.assert_close(loaded.preprocessing(images), expected(images))
    assert loaded.network(torch.rand(2, 3, 8, 8)).shape == (2, 3)


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    folder = uploaded(tmp_path / "vit")
    model = ViTForImageClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="4KB")
    assert (folder / "model.safetensors.index.json").is_file()
    assert load_network(folder).classes == CLASSES


def edit(folder: Path, name: str, **changes: Any) -> None:
    """Changes fields of a JSON file."""
    document = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**document, **changes}))


def break_folder(folder: Path, how: str) -> None:
    """Makes one thing wrong."""
    match how:
        case "pickle":
            (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        case "no config" | "no model_type":
            (folder / "config.json").unlink()
            if how == "no model_type":
                (folder / "config.json").write_text("{}")
        case "config is no JSON":
            (folder / "config.json").write_text("{")
        case "remote code":
            edit(folder, "config.json", auto_map={"AutoModelForImageClassification": "evil.Evil"})
        case "remote kernel":
            edit(folder, "config.json", attn_implementation="someone/kernel")
        case "another size":
            edit(folder, "config.json", hidden_size=32)
        case "a wrong type":
            edit(folder, "config.json", hidden_size="wide")
        case "truncated":
            weights = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
        case "no head":
            ViTModel(ViTConfig.from_pretrained(folder)).save_pretrained(folder)
        case "no processor":
            (folder / "preprocessor_config.json").unlink()
        case "wrong processor":
            edit(folder, "preprocessor_config.json", image_processor_type="NoImageProcessor")
        case "adapter":
            (folder / "adapter_config.json").write_text("{}")
        case "shard outside":
            (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
            index = {"metadata": {}, "weight_map": {"vit.embeddings.cls_token": "../model.safetensors"}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("pickle", r"pytorch_model.bin is a pickle, which can run code and is never loaded"),
        ("no config", "config.json is missing"),
        ("no model_type", "model_type None is no network"),
        ("config is no JSON", "config.json cannot be read"),
        ("remote code", "may not have auto_map"),
        ("remote kernel", "may not have attn_implementation"),
        ("another size", r"classifier.weight is \(3, 16\), and config.json makes a network where it is \(3, 32\)"),
        ("a wrong type", "make no image-classification network"),
        ("truncated", "make no image-classification network"),
        ("no head", "model.safetensors lacks classifier"),
        ("no processor", "preprocessor_config.json is missing"),
        ("wrong processor", "preprocessor_config.json cannot be read"),
        ("adapter", "adapter_config.json"),
        ("shard outside", "no safetensors file of the folder"),
    ],
)
def test_a_folder_that_is_broken_or_not_safe_is_refused_with_the_file_that_is_to_blame(
    tmp_path: Path, how: str, words: str
) -> None:
    folder = uploaded(tmp_path / "vit")
    break_folder(folder, how)
    with pytest.raises(UnreadableNetwork, match=words):
        load_network(folder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("labels.json", '["a", "b"]', "labels.json does not name 3 outputs"),
        ("config.json", '{"model_type": "stillhouse"}', "config.json does not describe"),
        ("preprocessor_config.json", "{}", "preprocessor_config.json cannot be read"),
        ("model.safetensors", "x", "model.safetensors does not hold the weights of small-cnn"),
    ],
)
def test_a_damaged_folder_of_an_own_network_is_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    _, folder = saved(tmp_path, SmallCnn(name="small-cnn", width=4), (1, 8, 8), GREY)
    (folder / name).write_text(content)
    with pytest.raises(UnreadableNetwork, match=words):
        load_network(folder)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    _, folder = saved(tmp_path, SmallCnn(name="small-cnn", width=4), (1, 8, 8), GREY)
    save_file({"weight": torch.ones(3)}, folder / "model.safetensors")
    with pytest.raises(UnreadableNetwork, match="does not hold the weights of small-cnn"):
        load_network(folder)
