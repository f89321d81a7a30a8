"""What is read of an uploaded model's folder: weights in several files, classes, image sizes, and what would fetch code."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import InvalidFile
from service.model_folder import FolderInfo, inspect_folder, refuse_loose_weights

HEADER = json.dumps({"weight": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"abc"
CONFIG = {"model_type": "resnet", "num_channels": 3, "id2label": {"0": "cat", "1": "dog"}}
OWN = {"model_type": "stillhouse", "architecture": {"name": "small-cnn"}, "input_shape": [1, 8, 8], "num_outputs": 2}


def new_folder(tmp_path: Path) -> Path:
    (folder := tmp_path / "new").mkdir()
    return folder


def inspected(folder: Path, **files: Any) -> FolderInfo:
    """A good folder with some files changed, or left out where they are None; ``__`` stands for a dot."""
    defaults = {"config.json": CONFIG, "preprocessor_config.json": {"size": 8}, "model.safetensors": WEIGHTS}
    names = []
    for name, content in (defaults | {name.replace("__", "."): content for name, content in files.items()}).items():
        if content is not None:
            names.append(Path(name))
            (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return inspect_folder(folder, names)


@pytest.mark.parametrize(
    ("processor", "config", "shape"),
    [
        ({"size": 8}, {}, [3, 8, 8]),
        ({"size": {"shortest_edge": 12}}, {}, [3, 12, 12]),
        ({"size": {"height": 8, "width": 12}}, {}, [3, 8, 12]),
        ({"size": [8, 12]}, {}, [3, 8, 12]),
        ({"size": 256, "do_center_crop": True, "crop_size": 224}, {}, [3, 224, 224]),
        ({"size": 256, "do_center_crop": False, "crop_size": 224}, {}, [3, 256, 256]),
        ({"size": 8}, {"image_size": 224}, [3, 8, 8]),
        ({}, {"image_size": 224, "num_channels": 1}, [1, 224, 224]),
        ({}, {"image_size": [8, 12]}, [3, 8, 12]),
    ],
)
def test_the_images_are_as_large_as_the_processor_makes_them(
    tmp_path: Path, processor: dict[str, Any], config: dict[str, Any], shape: list[int]
) -> None:
    assert inspected(tmp_path, preprocessor_config__json=processor, config__json=CONFIG | config).input_shape == shape


def test_classes_that_the_config_does_not_name_are_named_by_the_labels(tmp_path: Path) -> None:
    info = inspected(tmp_path, config__json=CONFIG | {"id2label": {}}, labels__json=["ä", "猫", "👍"])
    assert info.classes == ["ä", "猫", "👍"]


def test_a_body_without_a_head_has_no_classes(tmp_path: Path) -> None:
    config = {name: value for name, value in CONFIG.items() if name != "id2label"}
    assert inspected(tmp_path, config__json=config | {"architectures": ["ViTModel"]}).classes == []
    with pytest.raises(InvalidFile, match="names the classes"):
        inspected(tmp_path, config__json=config | {"architectures": ["ViTForImageClassification"]})


def test_a_network_of_several_labels_a_sample_has_their_names(tmp_path: Path) -> None:
    several = CONFIG | {"problem_type": "multi_label_classification"}
    assert inspected(tmp_path, config__json=several).classes == ["cat", "dog"]
    assert inspected(tmp_path, config__json=several).problem_type == "multi_label_classification"
    info = inspected(tmp_path, config__json=several | {"id2label": {}}, labels__json={"traits": {"any_of": ["big", "even"]}})
    assert (info.classes, info.problem_type) == (["big", "even"], "multi_label_classification")


@pytest.mark.parametrize(
    ("config", "labels", "problem_type"),
    [
        ({}, None, "single_label_classification"),
        ({"id2label": {"0": "size"}}, None, "regression"),
        ({"problem_type": "regression"}, None, "regression"),
        ({"problem_type": "regression"}, ["cat", "dog"], "single_label_classification"),
        ({"id2label": {}}, {"size": None}, "regression"),
        ({"id2label": {}}, {"size": None, "kind": ["cat", "dog"]}, None),
    ],
)
def test_what_outputs_mean_is_told_as_the_worker_reads_it(
    tmp_path: Path, config: dict[str, Any], labels: Any, problem_type: str | None
) -> None:
    files = {} if labels is None else {"labels__json": labels}
    assert inspected(tmp_path, config__json=CONFIG | config, **files).problem_type == problem_type


def test_weights_may_be_in_several_files(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}
    info = inspected(
        tmp_path,
        **{
            "model.safetensors": None,
            "model.safetensors.index.json": index,
            "model-1.safetensors": WEIGHTS,
            "model-2.safetensors": WEIGHTS,
        },
    )
    assert (info.task, info.classes, info.input_shape) == ("image-classification", ["cat", "dog"], [3, 8, 8])


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ([], "not a JSON object"),
        ({}, "no weight_map"),
        ({"weight_map": {}}, "no weight_map"),
        ({"weight_map": ["model-1.safetensors"]}, "no weight_map"),
        ({"weight_map": {"a": "missing.safetensors"}}, "no safetensors file of the folder"),
        ({"weight_map": {"a": "../model.safetensors"}}, "no safetensors file of the folder"),
        ({"weight_map": {"a": "config.json"}}, "no safetensors file of the folder"),
        ({"weight_map": {"a": 1}}, "no safetensors file of the folder"),
        ({"weight_map": {"a": "model-1.safetensors"}}, "cut off"),
    ],
)
def test_a_list_of_weight_files_that_does_not_hold_is_refused(tmp_path: Path, index: Any, said: str) -> None:
    files = {"model.safetensors": None, "model.safetensors.index.json": index, "model-1.safetensors": WEIGHTS[:-1]}
    with pytest.raises(InvalidFile, match=said):
        inspected(tmp_path, **files)


@pytest.mark.parametrize("name", ["x.BIN", "x.pth", "x.pickle", "x.ckpt", "x.npy", "x.npz", "x.h5", "x.msgpack", "x.joblib"])
def test_a_file_that_can_run_code_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidFile, match=f"{name}: such files can run code"):
        inspected(tmp_path, **{name: b""})


def test_an_adapter_is_no_whole_network(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="merge the adapter"):
        inspected(tmp_path, adapter_config__json={})


@pytest.mark.parametrize("field", ["auto_map", "quantization_config", "attn_implementation", "_attn_implementation"])
def test_a_field_that_would_fetch_code_is_refused_whatever_it_says(tmp_path: Path, field: str) -> None:
    with pytest.raises(InvalidFile, match=f"may not have {field}"):
        inspected(tmp_path, config__json=CONFIG | {field: None})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": None}, "no network"),
        ({"model_type": []}, "no network"),
        ({"model_type": {}}, "no network"),
        ({"model_type": "gpt2"}, "tokenizer.json is missing"),
        ({"id2label": {"0": "cat", "2": "dog"}}, "does not name every class"),
        ({"id2label": {"0": "cat", "1": "cat"}}, "names a class twice"),
        ({"id2label": {"0": "cat", "1": ""}}, "does not name every class"),
        ({"id2label": {"0": "cat", "1": 7}}, "does not name every class"),
        ({"id2label": {"0": "cat", "1": "nul\0"}}, "does not name every class"),
        ({"id2label": {"0": "cat", "1": "half \ud83d"}}, "does not name every class"),
        ({"id2label": None}, "names the classes"),
        ({"num_channels": True}, "whole number"),
        ({"num_channels": 3.0}, "whole number"),
        ({"num_channels": 0}, "whole number"),
        ({"num_channels": "3"}, "whole number"),
        ({"num_channels": 2**40}, "whole number"),
    ],
)
def test_a_config_that_cannot_be_believed_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidFile, match=said):
        inspected(tmp_path, config__json=CONFIG | changes)


@pytest.mark.parametrize(
    ("processor", "said"),
    [
        ({}, "says how large the images are"),
        ({"size": None}, "says how large the images are"),
        ({"size": {"height": 8}}, "says how large the images are"),
        ({"size": [8, 8, 8]}, "says how large the images are"),
        ({"size": {"shortest_edge": [8]}}, "whole number"),
        ({"size": True}, "whole number"),
        ({"size": -8}, "whole number"),
        ([], "not a JSON object"),
        (b"\xff", "not JSON"),
        (b"1" * 5000, "not JSON"),
    ],
)
def test_a_processor_that_cannot_be_believed_is_refused(tmp_path: Path, processor: Any, said: str) -> None:
    with pytest.raises(InvalidFile, match=said):
        inspected(tmp_path, preprocessor_config__json=processor)


@pytest.mark.parametrize(
    ("changes", "labels", "said"),
    [
        ({}, None, "labels.json is missing"),
        ({}, ["a"], "must agree"),
        ({}, {"0": "a", "1": "b"}, "not a list of class names"),
        ({}, ["a", "\ud800"], "does not name every class"),
        ({"num_outputs": 2.0}, ["a", "b"], "needs input_shape"),
        ({"input_shape": [1, 8, "8"]}, ["a", "b"], "needs input_shape"),
        ({"input_shape": [1, 8, False]}, ["a", "b"], "whole number"),
        ({"architecture": "small-cnn"}, ["a", "b"], "architecture"),
        ({"architecture": {"name": "small-cnn", "width": -1}}, ["a", "b"], "architecture/small-cnn/width"),
    ],
)
def test_an_own_network_that_cannot_be_believed_is_refused(tmp_path: Path, changes: Any, labels: Any, said: str) -> None:
    with pytest.raises(InvalidFile, match=said):
        inspected(tmp_path, config__json=OWN | changes, labels__json=labels)


def test_pickles_beside_the_weights_are_only_left_out(tmp_path: Path) -> None:
    """As a trainer of the library leaves them."""
    with pytest.raises(InvalidFile, match=r"training_args.bin: .* weights are safetensors already: leave these files out"):
        inspected(tmp_path, training_args__bin=b"\x80\x04.")
    assert inspected(tmp_path).classes == ["cat", "dog"]


@pytest.mark.parametrize("name", ["model-q4.gguf", "model.GGUF"])
def test_gguf_is_refused_beside_other_weights_alone_and_where_there_are_several(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidFile, match="leave the GGUF file out"):
        inspected(tmp_path, **{name: b"GGUF"})
    with pytest.raises(InvalidFile, match="a zip or tar of a folder that holds it alone"):
        refuse_loose_weights(name)
    with pytest.raises(InvalidFile, match="leave one whole one"):
        inspected(tmp_path, **{name: b"GGUF", "other.gguf": b"GGUF", "model.safetensors": None})
    with pytest.raises(InvalidFile, match="is no GGUF file, or it is cut off"):
        inspected(new_folder(tmp_path), **{name: b"GGUF", "model.safetensors": None})


def test_shards_without_their_index_are_told_and_the_index_mends_it(tmp_path: Path) -> None:
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    shards = {"model.safetensors": None, first: WEIGHTS, second: WEIGHTS}
    with pytest.raises(
        InvalidFile, match=rf"model.safetensors.index.json is missing, .* {first}, {second} .* pack it beside them"
    ):
        inspected(tmp_path, **shards)
    index = {"weight_map": {"a": first, "b": second}}
    with pytest.raises(InvalidFile, match=rf"names '{second}', which is no safetensors file of the folder: pack all 2"):
        inspected(tmp_path, **{**shards, second: None, "model.safetensors.index.json": index})
    assert inspected(tmp_path, **shards, **{"model.safetensors.index.json": index}).classes == ["cat", "dog"]


def test_weights_of_another_name_are_named_and_renaming_them_mends_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"there is pytorch.safetensors: if these are .* call it model.safetensors"):
        inspected(tmp_path, **{"model.safetensors": None, "pytorch.safetensors": WEIGHTS})
    assert inspected(tmp_path).classes == ["cat", "dog"]


def test_a_network_beside_other_files_is_told_and_packing_its_folder_alone_mends_it(tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    inspected(tmp_path / "vit")
    (tmp_path / "README.md").write_text("x")
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    with pytest.raises(InvalidFile, match=r"config.json is in the folder 'vit', beside other files: pack that folder alone"):
        inspect_folder(tmp_path, files)
    assert inspect_folder(tmp_path / "vit", [path.relative_to("vit") for path in files if path.parts[0] == "vit"])


def test_a_causal_language_model_is_told_by_its_architecture_and_has_no_classes(tmp_path: Path) -> None:
    causal = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 300}
    info = inspected(tmp_path, config__json=causal, preprocessor_config__json=None, tokenizer__json={})
    assert info == FolderInfo(task="causal-lm", classes=[], input_shape=[])
    with pytest.raises(InvalidFile, match=r"tokenizer.json is missing"):
        inspected(tmp_path, config__json=causal, preprocessor_config__json=None)


def test_a_key_that_stands_twice_is_refused_with_its_place(tmp_path: Path) -> None:
    config = json.dumps(CONFIG).replace('"1": "dog"', '"1": "dog", "1": "bird"').encode()
    with pytest.raises(InvalidFile, match=r"config\.json: /id2label/1: this field stands 2 times"):
        inspected(tmp_path, config__json=config)
