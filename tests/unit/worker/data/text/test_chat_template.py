"""What of a chat has a loss: as the library's own mask tells it, by marks and turn by turn, or nothing at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.formats.chat import Chat, chat_of
from tests.unit.worker.data.text import chat_templates as written
from tests.unit.worker.data.text.chat_templates import CHATML, FAMILIES, PLAIN_CHATS, TOOL_CHATS, Family, exchange, turn
from worker.data.errors import UnusableRow
from worker.data.text.chat_template import ChatTemplate, ReadChat
from worker.data.text.tokenization import load_tokenizer
from worker.errors import JobFault

CASES = [
    *((family, name) for family in FAMILIES for name in PLAIN_CHATS),
    *(("Qwen", name) for name in TOOL_CHATS),
]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {name: family.tokenizer() for name, family in FAMILIES.items()}


def read(
    tokenizer: Any, chat: Sequence[dict[str, Any]], answer: Sequence[dict[str, Any]] | None = None, **settings: Any
) -> ReadChat:
    tools, template = settings.pop("tools", None), settings.pop("template", None)
    answers: list[Chat] | None = None if answer is None else [chat_of(answer)]
    reader = ChatTemplate(tokenizer, template, end=tokenizer.eos_token_id)
    (made,) = reader.read([chat_of(chat, tools)], answers, **({"length": 10_000, "cuts": True} | settings))
    return made


def by_library(tokenizer: Any, chat: Sequence[dict[str, Any]], template: str, tools: Any = None) -> tuple[list[int], list[bool]]:
    found = tokenizer.apply_chat_template(
        list(chat),
        tools=tools,
        chat_template=template,
        add_generation_prompt=chat[-1]["role"] != "assistant",
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return found["input_ids"], [bool(each) for each in found["assistant_masks"]]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_marks_and_turns_both_count_what_the_library_marks(tokenizers: dict[str, Any], family: str, name: str) -> None:
    tokenizer, chat = tokenizers[family], (PLAIN_CHATS | TOOL_CHATS)[name]
    tools = written.TOOLS if name in TOOL_CHATS else None
    ids, counted = by_library(tokenizer, chat, FAMILIES[family].marked, tools)
    for template in (FAMILIES[family].marked, FAMILIES[family].plain, None):
        made = read(tokenizer, chat, tools=tools, template=template)
        assert (made.ids, made.counted, made.lost_turns) == (ids, counted, 0)
        assert (made.is_open, made.says_markup) == (name == "an open end", name == "markup in a turn")
    said = tokenizer.decode([token for token, counts in zip(ids, counted, strict=True) if counts])
    answers = [each["content"] for each in chat if each["role"] == "assistant" and each["content"]]
    assert said.count(FAMILIES[family].end) == sum(each["role"] == "assistant" for each in chat)
    assert all(answer in said for answer in answers)
    assert made.ids.count(tokenizer.bos_token_id) == (tokenizer.bos_token_id is not None), "the tokenizer would add another"


def test_the_end_token_counts_where_the_marks_leave_it_out(tokenizers: dict[str, Any]) -> None:
    without = CHATML.marked.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
    ids, counted = by_library(tokenizers["ChatML"], exchange(1), without)
    made = read(tokenizers["ChatML"], exchange(1), template=without)
    last = max(place for place, counts in enumerate(counted) if counts)
    assert (made.ids, made.counted) == (ids, [counts or place == last + 1 for place, counts in enumerate(counted)])
    assert made.ids[last + 1] == tokenizers["ChatML"].pad_token_id, "though rows are padded with it"


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("is_marked", [True, False])
def test_a_completion_alone_counts_as_in_trl(tokenizers: dict[str, Any], family: str, is_marked: bool) -> None:
    """There all behind the prompt counts, with the white space behind the end token, which no student ever writes."""
    tokenizer, prompt, answer = tokenizers[family], [*exchange(1), exchange(2)[0]], [exchange(2)[1]]
    made = read(tokenizer, prompt, answer, template=FAMILIES[family].marked if is_marked else None)
    asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    whole = tokenizer.apply_chat_template(prompt + answer)["input_ids"]
    assert made.ids == whole
    assert made.ids[: len(asked)] == asked
    last = max(place for place, token in enumerate(whole) if token == tokenizer.eos_token_id)
    assert made.counted == [len(asked) <= place <= last for place in range(len(whole))]


def test_tools_that_a_template_does_not_write_are_refused(tokenizers: dict[str, Any]) -> None:
    with pytest.raises(UnusableRow, match="does not write the tools, 'add' say"):
        read(tokenizers["ChatML"], exchange(1), tools=written.TOOLS)


def test_a_completion_may_be_learnt_though_earlier_thoughts_are_taken_away(tokenizers: dict[str, Any]) -> None:
    prompt = [turn("user", "a"), turn("assistant", "<think>b</think>c"), turn("user", "d")]
    made = read(tokenizers["ChatML"], prompt, [turn("assistant", "<think>e</think>f")], template=written.THINKS)
    said = tokenizers["ChatML"].decode([token for token, counts in zip(made.ids, made.counted, strict=True) if counts])
    assert said == "<think>e</think>f<|im_end|>"


def test_a_chat_without_an_answer_is_a_prompt(tokenizers: dict[str, Any]) -> None:
    chat = [*exchange(1)[:1]]
    made = read(tokenizers["ChatML"], chat)
    assert made.ids == tokenizers["ChatML"].apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert (any(made.counted), made.is_open) == (False, True)
    with pytest.raises(UnusableRow, match="row 0: its answer has no turn of the assistant"):
        read(tokenizers["ChatML"], chat, [turn("user", "b")])


TWO = [turn("user", "a"), turn("assistant", "<think>b</think>c"), turn("user", "d"), turn("assistant", "e")]


@pytest.mark.parametrize(
    ("template", "chat", "words"),
    [
        (written.THINKS, TWO, "row 0: written alone, the first 2 messages .* are not the beginning.*prompt and completion"),
        (written.ENDS_ONCE, TWO, "row 0: written alone, the first 2 messages"),
        (written.COUNTS, TWO, "row 0: written alone, the first 1 messages"),
        (None, [turn("assistant", "a"), *exchange(1)], "begins with a turn of the assistant"),
        (None, [turn("user", "a"), turn("assistant", "\nb")], "make one token with what the template writes before it"),
        (FAMILIES["Mistral"].plain, [turn("user", "a"), turn("user", "b"), turn("assistant", "c")], "roles must alternate"),
        ("{{ messages[0].name.first }}", TWO, "fails at its first 4 messages|refuses its first 4 messages"),
        (None, TOOL_CHATS["a call"], "does not write the call of the tool 'add'"),
        (CHATML.marked, TOOL_CHATS["a call"], "does not write the call of the tool 'add'"),
        (
            CHATML.plain.replace("{{ m.content }}", "{{ m.text }}"),
            exchange(1),
            "writes '.*', which no turn of the assistant ends with",
        ),
        (written.MARKS_IN_A_MACRO, TWO, "which no turn of the assistant ends with"),
        ("{% generation %}{% endgeneration %}{{ messages }}", TWO, "marks nothing of it"),
    ],
)
def test_a_chat_of_which_it_is_not_certain_what_counts_is_refused_with_its_row(
    template: str | None, chat: list[dict[str, Any]], words: str
) -> None:
    tokenizer = merging_newlines() if "make one token" in words else CHATML.tokenizer()
    with pytest.raises(UnusableRow, match=words):
        read(tokenizer, chat, template=template)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (written.ENDLESS, "does not end the assistant's turn with the tokenizer's end token, '<|im_end|>', but with"),
        (CHATML.plain.replace("<|im_end|>", "</s>"), "but with '.*</s>"),
        (CHATML.marked.replace("<|im_end|>", "</s>"), "but with '.*</s>"),
        (written.DATED, "writes today's date"),
        ("{{ lipsum() }}" + CHATML.plain, "drawn at random"),
        ("{{ [1, 2] | random }}" + CHATML.plain, "drawn at random"),
    ],
)
def test_a_template_that_cannot_be_learnt_is_refused_at_its_place(template: str, words: str) -> None:
    with pytest.raises(JobFault, match=words.replace("|", r"\|")) as fault:
        read(CHATML.tokenizer(), TWO, template=template)
    assert fault.value.details == {"pointer": "/dataset/chat_template"}


@pytest.mark.parametrize("answer", [None, [exchange(4)[1]]])
@pytest.mark.parametrize("is_marked", [True, False])
def test_a_long_chat_loses_its_oldest_turns_and_never_the_systems(
    tokenizers: dict[str, Any], answer: list[dict[str, Any]] | None, is_marked: bool
) -> None:
    tokenizer, family = tokenizers["ChatML"], CHATML
    turns = [*exchange(1), *exchange(2), *exchange(3), exchange(4)[0], *([] if answer else [exchange(4)[1]])]
    template = family.marked if is_marked else None
    whole = read(tokenizer, [written.SYSTEM, *turns], answer, template=template)
    for lost in (2, 4, 6):
        expected = read(tokenizer, [written.SYSTEM, *turns[lost:]], answer, template=template)
        made = read(tokenizer, [written.SYSTEM, *turns], answer, template=template, length=len(expected.ids))
        assert (made.ids, made.counted, made.lost_turns) == (expected.ids, expected.counted, lost)
    shortest = read(tokenizer, [written.SYSTEM, *turns], answer, template=template, length=4)
    assert (shortest.ids, shortest.lost_turns) == (made.ids, 6), "the last exchange stays"
    refused = read(tokenizer, [written.SYSTEM, *turns], answer, template=template, length=4, cuts=False)
    assert refused == whole, "whoever refuses long rows sees them whole"


def test_an_answer_to_a_tool_stays_with_its_question(tokenizers: dict[str, Any]) -> None:
    chat = [*exchange(1), *TOOL_CHATS["a call"]]
    expected = read(tokenizers["Qwen"], TOOL_CHATS["a call"], tools=written.TOOLS)
    made = read(tokenizers["Qwen"], chat, tools=written.TOOLS, length=len(expected.ids))
    assert (made.ids, made.counted) == (expected.ids, expected.counted)


def merging_newlines() -> Any:
    """A tokenizer for which two line ends are one token."""
    family = Family(CHATML.template, None, "<|im_end|>")
    tokenizer = family.tokenizer()
    tokenizer.add_tokens(["\n\n"])
    return tokenizer


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [*PLAIN_CHATS])
def test_a_real_chat_models_own_template_counts_its_answers_with_their_ends(smollm2: Path, name: str) -> None:
    tokenizer, chat = load_tokenizer(smollm2), PLAIN_CHATS[name]
    made = read(tokenizer, chat)
    is_open = chat[-1]["role"] != "assistant"
    assert made.ids == tokenizer.apply_chat_template(chat, add_generation_prompt=is_open)["input_ids"]
    said = tokenizer.decode([token for token, counts in zip(made.ids, made.counted, strict=True) if counts])
    assert said == "".join(f"{each['content']}<|im_end|>" for each in chat if each["role"] == "assistant")
