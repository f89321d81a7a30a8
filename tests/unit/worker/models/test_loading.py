"""Networks in number formats: what files hold is found, kept where it is asked for, and never widened on its way."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from service.spec.architectures import TransformersNetwork
from service.spec.shapes import TokenShape
from tests.unit.worker.models.test_language_network import built
from worker.data.text.language_preprocessing import LanguagePreprocessing
from worker.data.text.tokenization import train_tokenizer
from worker.models import UnfitArchitecture, build_network, save_network
from worker.models.loading import (
    FLOAT32,
    FloatFormat,
    Loading,
    NumberFormat,
    StoredWeights,
    choose_loading,
    dtype_of,
    held_bytes,
    hold,
)
from worker.models.quantised import check_format, count_quantised, is_quantised, quantise
from worker.targets import Targets
from worker.tasks import TASKS, load_network

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of a layer, in float32."""
    reads = LanguagePreprocessing(train_tokenizer(["one and two make three"], "bpe", 300), 8)
    path = tmp_path_factory.mktemp("model") / "fp32"
    save_network(built("llama", reads.input_shape([])), path, preprocessing=reads, targets=Targets(()))
    return path


def in_format(folder: Path, made: Path, dtype: torch.dtype) -> Path:
    """The same folder with weights of another type."""
    made.mkdir()
    for path in folder.iterdir():
        (made / path.name).write_bytes(path.read_bytes())
    weights = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    return made


def logits(network: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.head(network.hidden(ids)).float()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "bf16"), (torch.float16, "fp16"), (torch.float32, "fp32")])
def test_a_file_is_held_in_its_own_format_and_computes_what_its_widened_weights_do(
    folder: Path, tmp_path: Path, dtype: torch.dtype, name: FloatFormat
) -> None:
    path = in_format(folder, tmp_path / name, dtype)
    stored = StoredWeights.of(path)
    assert stored.format == name
    loading = choose_loading("auto", stored.format, CPU)
    network = load_network(path, loading=loading).network
    assert dtype_of(network) is dtype
    ids = torch.randint(2, 20, (2, 8))
    wide = load_network(path).network
    assert dtype_of(wide) is torch.float32
    rounding = 0.0 if dtype is torch.float32 else 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(logits(network, ids), logits(wide, ids), rtol=rounding, atol=rounding)
    assert sum(held_bytes(each) for each in network.parameters()) == stored.bytes(loading)
    assert stored.parameters * dtype.itemsize == stored.bytes(loading)


@pytest.mark.parametrize(
    ("name", "stored", "on_gpu", "chosen"),
    [
        ("auto", "fp32", False, "fp32"),
        ("auto", "bf16", False, "bf16"),
        ("auto", "fp32", True, "bf16"),
        ("auto", "fp16", True, "bf16"),
        ("fp16", "fp32", True, "fp16"),
        ("int8", "bf16", False, "int8"),
    ],
)
def test_auto_is_what_the_files_hold_and_bf16_on_a_gpu(
    name: Any, stored: FloatFormat, on_gpu: bool, chosen: NumberFormat
) -> None:
    assert choose_loading(name, stored, CPU, on_gpu=on_gpu) == Loading(chosen, CPU)


@pytest.mark.parametrize(
    ("format", "stored", "rounds"),
    [
        ("fp32", "bf16", False),
        ("bf16", "bf16", False),
        ("bf16", "fp32", True),
        ("bf16", "fp16", True),
        ("fp16", "bf16", True),
        ("int8", "bf16", True),
    ],
)
def test_a_format_rounds_what_has_more_digits_or_a_wider_range(format: NumberFormat, stored: FloatFormat, rounds: bool) -> None:
    assert Loading(format).rounds(stored) is rounds


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="the maps of a process are read from /proc")
def test_weights_of_the_files_format_stay_the_pages_of_their_file(folder: Path, tmp_path: Path) -> None:
    path = in_format(folder, tmp_path / "large", torch.bfloat16)
    network = load_network(path, loading=Loading("bf16")).network
    address = next(network.parameters()).data_ptr()
    assert any(
        "model.safetensors" in line and int(start, 16) <= address < int(end, 16)
        for line in Path("/proc/self/maps").read_text().splitlines()
        for start, end in [line.split()[0].split("-")]
    )


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="the maps of a process are read from /proc")
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_a_quantised_network_keeps_no_page_of_its_file(folder: Path, tmp_path: Path, name: NumberFormat) -> None:
    path = in_format(folder, tmp_path / name, torch.bfloat16)
    network = load_network(path, loading=Loading(name)).network
    gc.collect()
    assert count_quantised(network).layers
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_an_own_network_of_images_takes_float32_in_every_format() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        expected = network(images)
        for format in ("bf16", "fp16"):
            outputs = hold(network, Loading(format))(images)
            assert outputs.dtype is dtype_of(network) is Loading(format).dtype
            torch.testing.assert_close(outputs.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_integers_take_the_inner_layers_alone_and_answer_as_the_network_does(format: NumberFormat, model_type: str) -> None:
    network = wide(model_type)
    ids = torch.randint(2, 90, (4, 8))
    expected, paths = logits(network, ids), [path for path, _ in network.named_modules()]
    full = sum(held_bytes(each) for each in network.parameters())
    quantise(network, Loading(format))
    found = count_quantised(network)
    inner = [module for module in network.model.base_model.modules() if isinstance(module, nn.Linear)]
    assert found.layers == len(inner) > 0
    assert found.left_out == 1
    assert not is_quantised(network.model.get_output_embeddings())
    assert [path for path, _ in network.named_modules()] == paths
    divergence = nn.functional.kl_div(
        logits(network, ids).log_softmax(-1), expected.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert divergence / 8 < 0.02
    assert found.num_bytes < (0.32 if format == "int8" else 0.24) * full
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(logits(network, ids), logits(network, ids))


@pytest.mark.parametrize("format", ["bf16", "fp16", "int8"])
@pytest.mark.parametrize("model_type", ["gpt_neox", "qwen3"])
def test_far_positions_are_turned_as_the_library_turns_them_in_every_format(model_type: str, format: NumberFormat) -> None:
    network, far = wide(model_type), torch.arange(3000, 3010)[None]
    expected = network.model.base_model.rotary_emb(torch.empty(1), far)
    hold(network, Loading(format))
    assert all(map(torch.equal, network.model.base_model.rotary_emb(torch.empty(1), far), expected))


def test_each_kind_of_layer_of_one_network_keeps_its_positions() -> None:
    network = build_network(
        TransformersNetwork(name="transformers", model_type="modernbert", config={"hidden_size": 32, "num_attention_heads": 2}),
        kind=TASKS["text-classification"].network,
        input_shape=TokenShape(20, 8, pad=1, start=0, end=0),
        num_outputs=2,
    )
    before = {name: each.clone() for name, each in network.named_buffers() if "inv_freq" in name}
    after = dict(hold(network, Loading("bf16")).named_buffers())
    assert len(before) > 1
    assert all(torch.equal(after[name], each) for name, each in before.items())


def test_the_size_by_the_headers_is_that_of_the_quantised_network(tmp_path: Path) -> None:
    reads = LanguagePreprocessing(train_tokenizer(["one and two make three"], "bpe", 300), 8)
    path = tmp_path / "model"
    save_network(wide("llama"), path, preprocessing=reads, targets=Targets(()))
    for format in ("int8", "int4"):
        network = wide("llama")
        quantise(network, Loading(format))
        assert StoredWeights.of(path).bytes(Loading(format)) == pytest.approx(count_quantised(network).num_bytes, rel=0.1)


def test_layers_that_int4_does_not_divide_stay_as_they_are_and_are_counted() -> None:
    network = nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 64), nn.Linear(64, 24), nn.Linear(24, 3))
    quantise(network, Loading("int4"))
    assert [is_quantised(layer) for layer in network] == [True, False, False, False]
    assert (count_quantised(network).layers, count_quantised(network).left_out) == (1, 3)
    assert network(torch.rand(2, 64).bfloat16()).isfinite().all()


@pytest.mark.parametrize(
    "network",
    [nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3)), nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 3))],
    ids=["convolutions", "narrow"],
)
def test_a_network_that_a_format_would_not_change_is_refused(network: nn.Module) -> None:
    with pytest.raises(UnfitArchitecture, match="changes nothing"):
        quantise(network, Loading("int4"))


def test_int4_on_a_gpu_without_its_kernels_is_refused_with_the_package() -> None:
    with pytest.raises(UnfitArchitecture, match="mslk"):
        check_format("int4", on_gpu=True)
    check_format("int4", on_gpu=False)
    check_format("int8", on_gpu=True)


def test_float32_leaves_a_network_as_it_was() -> None:
    network = nn.Linear(2, 2)
    hold(network, FLOAT32)
    assert not network._forward_pre_hooks


def wide(model_type: str) -> Any:
    """A language model whose layers int4 has groups for."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from worker.models.build import Built, remember
    from worker.models.language_network import LanguageNetwork
    from worker.tasks import TASKS

    sizes = {"gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 16}}.get(
        model_type, {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    )
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type, vocab_size=99, bos_token_id=0, eos_token_id=0, pad_token_id=1, tie_word_embeddings=False, **sizes
    )
    network = LanguageNetwork(AutoModelForCausalLM.from_config(config)).eval()
    remember(network, Built(architecture=None, input_shape=(1,), kind=TASKS["causal-lm"].network))
    return network
