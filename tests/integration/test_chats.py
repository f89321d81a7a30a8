"""Chats, from a spec to a student that writes answers by the template that it keeps; interrupted, and refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.integration.test_chain import report
from tests.integration.test_given_students import run_job
from tests.integration.test_given_teachers import warnings
from tests.integration.test_methods import student
from tests.unit.worker.data.text.chat_templates import CHATML, DATED, FAMILIES
from worker.protocol import RESULT_FOLDER, Failed, Finished, Stopped

TEMPLATE = (
    "{% for m in messages %}{{ '@' + m.role + '\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '@assistant\n' }}{% endif %}"
)
"""For tokenizers of any special tokens."""
TOKENIZER = {"train": "bpe", "vocab_size": 330, "max_length": 256}
LLAMA: dict[str, Any] = {
    "name": "transformers",
    "model_type": "llama",
    "config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 32,
        "max_position_embeddings": 256,
    },
}
SHORT = {"max_steps": 4, "batch_size": 8}
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]


def chats() -> list[list[dict[str, str]]]:
    """Sums in words, two in each chat."""
    said = [
        [{"role": "user", "content": f"{ten} {one} and one"}, {"role": "assistant", "content": f"{ten} {NUMBERS[place + 1]}"}]
        for ten in ("", "twenty", "thirty", "forty", "fifty", "sixty", "seventy")
        for place, one in enumerate(NUMBERS[:-1])
    ]
    return [first + second for first, second in zip(said, said[::-1], strict=True)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats()), encoding="utf-8")
    return path


def network(folder: Path, template: str | None = CHATML.plain, *, seed: int = 0) -> Path:
    """A llama that knows nothing yet, with a tokenizer that has this template."""
    tokenizer = CHATML.tokenizer(template)
    tokenizer.chat_template = template
    tokenizer.model_max_length = 256
    config = LlamaConfig(**LLAMA["config"], vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def spec(file: Path, **changes: Any) -> dict[str, Any]:
    own = {"source": f"file:{file}", "input": "messages", "chat_template": TEMPLATE}
    return {
        "task": "causal-lm",
        "dataset": own | changes.pop("dataset", {}),
        "teacher": {"architecture": LLAMA, "tokenizer": TOKENIZER, "training": SHORT},
        "student": {"architecture": LLAMA},
        "method": {"name": "forward-kl", "label_weight": 0.5},
        "training": SHORT,
    } | changes


def given(file: Path, **changes: Any) -> dict[str, Any]:
    """A job of two networks that exist."""
    teacher = {"source": "model:teacher", "accept_score": "any"}
    return spec(file, **{"teacher": teacher, "student": {"source": "model:given"}, "dataset": {"chat_template": None}} | changes)


def failed(events: list[Any]) -> tuple[str, str, str]:
    last = events[-1]
    assert isinstance(last, Failed), last
    return last.code, last.details.get("pointer", ""), f"{last.message} {last.hint}"


def test_a_student_writes_answers_by_the_template_that_it_keeps(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = run_job(spec(file, dataset={"packing": "isolated"}), tmp_path / "whole")
    assert isinstance(events[-1], Finished), events[-1]
    told = report(tmp_path / "whole")
    assert told["data"]["chats"]
    assert told["agreement"] is not None
    folder = tmp_path / "whole" / RESULT_FOLDER
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    assert tokenizer.chat_template == TEMPLATE
    written = tokenizer.apply_chat_template(chats()[0][:1], add_generation_prompt=True, tokenize=False)
    assert written == "@user\n one and one<|endoftext|>\n@assistant\n"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "apply_chat_template(messages, add_generation_prompt=True" in card
    (program,) = [block.removeprefix("python\n") for block in card.split("```")[1::2] if "apply_chat_template" in block]
    monkeypatch.chdir(folder)
    exec(program, {})

    stopped = run_job(spec(file, dataset={"packing": "isolated"}), tmp_path / "stopped", stop_in="the student")
    assert stopped[-1] == Stopped("drain")
    assert isinstance(run_job(spec(file, dataset={"packing": "isolated"}), tmp_path / "stopped")[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")


def test_a_network_that_read_texts_alone_learns_chats_by_its_teachers_template(tmp_path: Path) -> None:
    teacher, base = network(tmp_path / "teacher"), network(tmp_path / "base", None)
    path = tmp_path / "chats.jsonl"
    marked = [[turn | {"content": f"{turn['content']} <|eot|>"} for turn in chat] for chat in chats()[:1]]
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats() + marked), encoding="utf-8")
    events = run_job(given(path), tmp_path / "job", given=base, teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    assert "a message holds the name of a special token" in warnings(events)["markup_in_chats"]
    saved = AutoTokenizer.from_pretrained(tmp_path / "job" / RESULT_FOLDER / "student")
    assert saved.chat_template == CHATML.plain


def test_two_templates_of_one_tokenizer_are_refused_and_one_for_both_is_not(file: Path, tmp_path: Path) -> None:
    teacher, other = network(tmp_path / "teacher"), network(tmp_path / "other", CHATML.plain.replace("be brief", "be kind"))
    code, pointer, words = failed(run_job(given(file), tmp_path / "two", given=other, teacher=teacher))
    assert (code, pointer) == ("invalid_spec", "/dataset/chat_template")
    assert "write chats by two templates" in words
    one = given(file, dataset={"chat_template": CHATML.marked}, training={"max_steps": 1})
    events = run_job(one, tmp_path / "one", given=other, teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    assert "model:teacher comes with a chat template of its own" in warnings(events)["other_chat_template"]


@pytest.mark.parametrize(
    ("template", "words"), [(None, "the tokenizer has no chat template"), (DATED, "writes today's date"), ("{% if %}", "row 0")]
)
def test_chats_that_nothing_writes_are_refused(file: Path, tmp_path: Path, template: str | None, words: str) -> None:
    folder = network(tmp_path / "teacher", template)
    document = given(file, student={"architecture": LLAMA})
    events = run_job(document, tmp_path / "job", teacher=folder)
    code, pointer, told = failed(events)
    assert words in told
    assert (code, pointer) in (("invalid_spec", "/dataset/chat_template"), ("invalid_data", ""))


def test_a_teacher_answers_prompts_alone_and_other_methods_refuse_them(tmp_path: Path) -> None:
    rows = [{"messages": chat[:1], "split": "train"} for chat in chats()]
    rows += [{"messages": chat, "split": split} for split in ("validation", "test") for chat in chats()[:8]]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    teacher = network(tmp_path / "teacher")
    writes = {"name": "sequence", "max_new_tokens": 4, "num_beams": 1}
    document = given(path, student={"architecture": LLAMA}, method=writes)
    last = run_job(document, tmp_path / "job", teacher=teacher)[-1]
    assert isinstance(last, Finished), last
    code, pointer, words = failed(run_job(document | {"method": {"name": "jsd"}}, tmp_path / "other", teacher=teacher))
    assert (code, pointer) == ("invalid_data", "/method")
    assert "49 of 49 chats of the training split, the first in row 0, have no turn of the assistant" in words
    long = document | {"method": writes | {"max_new_tokens": 250}}
    assert failed(run_job(long, tmp_path / "long", teacher=teacher))[1] == "/method/max_new_tokens"


def test_tokenizers_of_two_kinds_compare_turn_by_turn(file: Path, tmp_path: Path) -> None:
    teacher = network(tmp_path / "teacher")
    own = {"architecture": LLAMA, "tokenizer": TOKENIZER}
    document = given(file, student=own, method={"name": "uld"}, dataset={"chat_template": FAMILIES["Qwen"].plain})
    code, pointer, words = failed(run_job(document, tmp_path / "unlike", teacher=teacher))
    assert (code, pointer) == ("invalid_spec", "/dataset/chat_template"), "the student's end token is another one"
    assert "does not end the assistant's turn with the tokenizer's end token" in words
    document = given(file, student=own, method={"name": "uld"}, dataset={"chat_template": TEMPLATE})
    events = run_job(document, tmp_path / "job", teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]


def test_long_chats_lose_their_oldest_turns_which_is_told_or_are_refused(file: Path, tmp_path: Path) -> None:
    document = spec(file, dataset={"row_tokens": 20}, training={"max_steps": 1})
    events = run_job(document, tmp_path / "cut")
    assert isinstance(events[-1], Finished), events[-1]
    assert "are cut by their oldest turns" in warnings(events)["turns_cut"]
    refused = spec(file, dataset={"row_tokens": 20, "overlong": "refuse"})
    code, _, words = failed(run_job(refused, tmp_path / "refused"))
    assert code == "invalid_data"
    assert "a row has 20: raise dataset.row_tokens" in words
