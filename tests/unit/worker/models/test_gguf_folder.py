"""Networks of llama.cpp, as the plain folders that everything else reads."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from service.model_facts import read_facts, read_licence
from service.model_folder import inspect_folder
from worker.models import UnreadableNetwork
from worker.models.gguf_folder import convert
from worker.models.given import load_given
from worker.sources.cache import NetworkCache
from worker.sources.conversion import plain_folder
from worker.targets import Targets
from worker.tasks import TASKS

LANGUAGE_MODELS = TASKS["causal-lm"].network
TOKENS = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>", "on", "one"]
PARTS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
NAMES |= {f"model.layers.{layer}.{part}": f"blk.{layer}.{name}" for layer in range(2) for part, name in PARTS.items()}


def network() -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(TOKENS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, max_position_embeddings=64, tie_word_embeddings=False, eos_token_id=256, bos_token_id=256,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


def write(path: Path, model: Any, change: Callable[[Any], object] = lambda writer: None, *, split: str = "qwen2") -> Path:
    """The model as llama.cpp keeps it, in a folder of its own; ``change`` adds to what is written."""
    path.parent.mkdir()
    writer = gguf.GGUFWriter(path, "qwen2")
    config = model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(TOKENS)
    writer.add_token_types([*[1] * 256, 3, 1, 1])
    writer.add_token_merges(["o n", "on e"])
    writer.add_eos_token_id(256)
    writer.add_bos_token_id(256)
    writer.add_license("mit")
    change(writer)
    for name, weight in model.state_dict().items():
        of, _, leaf = name.rpartition(".")
        writer.add_tensor(f"{NAMES[of]}.{leaf}", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.parent


def test_a_network_of_llama_cpp_is_converted_once_and_computes_as_before(tmp_path: Path) -> None:
    model = network()
    folder, cache = write(tmp_path / "given" / "tiny.gguf", model), NetworkCache(tmp_path / "cache", max_bytes=2**30)
    info = inspect_folder(folder, [Path("tiny.gguf")])
    assert (info.task, info.classes) == ("causal-lm", [])
    facts = read_facts(folder, [Path("tiny.gguf")])
    assert (facts.parameters, facts.licence) == (sum(weight.numel() for weight in model.parameters()), "mit")
    hold = partial(plain_folder, source="file:tiny", cache=cache)
    with hold(folder) as plain, hold(folder) as again:
        assert plain == again
        loaded, fitted = load_given(plain, LANGUAGE_MODELS, targets=Targets(()))
        tokenizer: Any = loaded.preprocessing.own_tokenizer
        assert tokenizer("one")["input_ids"] == [TOKENS.index("one")]
        ids = torch.tensor([[5, 258, 7, 256]])
        with torch.no_grad():
            expected, found = model(ids).logits[:, -1], loaded.network.eval()(ids)
        torch.testing.assert_close(found, expected)
        assert fitted.kind == "kept"
        assert AutoModelForCausalLM.from_pretrained(plain).config.model_type == "qwen2"
        assert read_licence(plain) == "mit"
    with hold(plain) as itself:
        assert itself == plain


@pytest.mark.parametrize(
    ("change", "split", "words"),
    [
        (lambda writer: writer.add_expert_count(4), "qwen2", "mixtures of experts"),
        (lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN), "qwen2", "its positions are scaled"),
        (lambda writer: writer.add_uint16("split.count", 3), "qwen2", "one of 3 files"),
        (lambda writer: None, "of-my-own", r"how its tokenizer splits texts \(tokenizer.ggml.pre: 'of-my-own'\)"),
    ],
    ids=["experts", "positions", "split", "tokenizer"],
)
def test_what_would_be_computed_otherwise_is_refused(
    tmp_path: Path, change: Callable[[Any], object], split: str, words: str
) -> None:
    folder = write(tmp_path / "given" / "tiny.gguf", network(), change, split=split)
    with pytest.raises(UnreadableNetwork, match=words):
        convert(folder / "tiny.gguf", tmp_path / "converted")


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "given" / "tiny.gguf", network())
    whole = (folder / "tiny.gguf").read_bytes()
    for length in (3, 40, len(whole) // 2):
        (folder / "tiny.gguf").write_bytes(whole[:length])
        with pytest.raises(UnreadableNetwork, match=r"cut off|no GGUF file"):
            convert(folder / "tiny.gguf", tmp_path / "converted")


def test_a_real_chat_model_answers_as_it_was_taught(smollm2: Path) -> None:
    loaded, _ = load_given(smollm2, LANGUAGE_MODELS, targets=Targets(()))
    tokenizer: Any = loaded.preprocessing.own_tokenizer
    assert tokenizer.convert_ids_to_tokens(tokenizer("cost 12")["input_ids"]) == ["cost", "Ġ", "1", "2"]
    with torch.no_grad():
        logits = loaded.network.eval()(torch.tensor([tokenizer("The capital of France is")["input_ids"]]))
    assert tokenizer.decode(logits.argmax(dim=-1)) == " Paris"
