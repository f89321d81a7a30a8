"""Chats made of real texts, over HTTP: uploaded, checked, learnt by a small llama; what no template decides is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from examples.python_docs import chats
from service.client import ApiError, Client
from service.embedded.stack import Stack
from tests.acceptance.test_real_models import ended, ended_though_killed, uploaded, weights

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA: dict[str, Any] = {
    "name": "transformers",
    "model_type": "llama",
    "config": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
    },
}
TOKENIZER = {"train": "bpe", "vocab_size": 600, "max_length": 192}


def spec(source: str, **changes: Any) -> dict[str, Any]:
    own = {"source": source, "input": "messages", "packing": "isolated", "chat_template": TEMPLATE}
    training = {"max_steps": 6, "batch_size": 8, "checkpoint_steps": 2}
    return {
        "task": "causal-lm",
        "dataset": own | changes.pop("dataset", {}),
        "teacher": {"architecture": LLAMA, "tokenizer": TOKENIZER, "training": training},
        "student": {"architecture": LLAMA},
        "method": {"name": "forward-kl", "label_weight": 0.5},
        "training": training,
    } | changes


@pytest.fixture
def source(client: Client, tmp_path: Path) -> str:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chats()[::3]), encoding="utf-8")
    dataset = client.upload_dataset(path, name="chats", task="causal-lm", input_column="messages")
    return f"dataset:{dataset.id}"


def test_chats_are_uploaded_and_a_small_llama_learns_to_answer_by_their_template(
    client: Client, source: str, tmp_path: Path
) -> None:
    with pytest.raises(ApiError) as refused:
        client.submit(spec(source, dataset={"packing": "packed"}))
    assert [fault.pointer for fault in refused.value.faults] == ["/dataset/packing"]
    job = ended(client, spec(source))
    report = client.report(job.id)
    assert report["data"]["chats"]
    assert report["student"]["metrics"]["next token"]["perplexity"] < 600, "no worse than a guess among all tokens"
    client.download(job.id, tmp_path, names=["student"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    written = tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], add_generation_prompt=True, tokenize=False)
    assert written == "<|im_start|>user\nWhy?<|endoftext|>\n<|im_start|>assistant\n"
    failed = client.wait(client.submit(spec(source, dataset={"chat_template": None})).id, timeout_seconds=300)
    assert failed.error is not None
    assert (failed.error.details["pointer"], failed.attempt) == ("/dataset/chat_template", 0), "the check has told"


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("packing", ["isolated", "padded"])
def test_a_real_chat_model_teaches_a_small_one_by_its_own_template_and_an_interruption_changes_no_byte(
    client: Client, running_stack: Stack, smollm2: Path, tmp_path: Path, packing: str
) -> None:
    rows = chats()[::25]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chats.parquet")
    dataset = client.upload_dataset(tmp_path / "chats.parquet", name="chats", task="causal-lm", input_column="messages")
    small = LLAMA | {"config": LLAMA["config"] | {"max_position_embeddings": 2048}}
    document = spec(
        f"dataset:{dataset.id}",
        dataset={"chat_template": None, "row_tokens": 256, "packing": packing},
        teacher={"source": uploaded(client, smollm2, "smollm2")},
        student={"architecture": small},
        training={"max_steps": 4, "batch_size": 2, "checkpoint_steps": 1},
    )
    whole = ended(client, document)
    report = client.report(whole.id)
    assert report["teacher"]["metrics"]["next token"]["perplexity"] < report["student"]["metrics"]["next token"]["perplexity"]
    killed = ended_though_killed(client, running_stack, document)
    assert weights(client, killed, "student") == weights(client, whole, "student")
    assert AutoTokenizer.from_pretrained(smollm2).chat_template is not None
