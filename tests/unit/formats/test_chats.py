"""Chats in JSON Lines and Parquet: lists of messages, tools beside them, prompts and completions."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import InvalidFile
from service.formats import inspect_dataset, read_dataset
from service.formats.chat import Chat

ASKED: dict[str, Any] = {"role": "user", "content": "Is it raining in Oslo?"}
SAID: dict[str, Any] = {"role": "assistant", "content": "It is."}
CALL: dict[str, Any] = {
    "role": "assistant",
    "tool_calls": [{"type": "function", "function": {"name": "rain", "arguments": {"city": "Oslo"}}}],
}
ANSWER: dict[str, Any] = {"role": "tool", "name": "rain", "content": "yes"}
TOOLS = [{"type": "function", "function": {"name": "rain", "parameters": {"type": "object"}}}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chats(path: Path, column: str = "messages", targets: tuple[str, ...] = ()) -> list[Chat]:
    return list(read_dataset(path, task="causal-lm", input_column=column, target_columns=targets).splits["train"].inputs)


@pytest.fixture(params=["a.jsonl", "a.parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def test_messages_and_tools_are_read_as_they_were_written(path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [ASKED, CALL, ANSWER, SAID], "tools": TOOLS},
        {"messages": [ASKED, SAID], "tools": None},
    ]
    first, second = chats(write(path, rows))
    assert (first.messages, first.tools) == ([ASKED, CALL, ANSWER, SAID], TOOLS)
    assert (second.messages, second.tools) == ([ASKED, SAID], None)
    info = inspect_dataset(path, filename=path.name, task="causal-lm", input_column="messages", target_columns=[])
    assert (info.columns["messages"].kind, info.columns["tools"].kind, info.splits) == ("messages", "other", {"train": 2})


def test_a_prompt_and_its_completion_are_both_messages(path: Path) -> None:
    write(path, [{"prompt": [ASKED], "completion": [SAID]}])
    arrays = read_dataset(path, task="causal-lm", input_column="prompt", target_columns=("completion",))
    (prompt,), (answer,) = arrays.splits["train"].inputs, arrays.splits["train"].targets["completion"]
    assert isinstance(prompt, Chat)
    assert isinstance(answer, Chat)
    assert (prompt.messages, answer.messages) == ([ASKED], [SAID])
    write(path, [{"prompt": [ASKED], "completion": "It is."}])
    with pytest.raises(InvalidFile, match="holds texts, and the input messages: write both as texts, or both as messages"):
        read_dataset(path, task="causal-lm", input_column="prompt", target_columns=("completion",))


def test_arguments_that_are_the_text_of_an_object_become_that_object(path: Path) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "rain", "arguments": '{"city": "Oslo"}'}}]}
    (chat,) = chats(write(path, [{"messages": [ASKED, call]}]))
    assert chat.messages[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}


def test_an_argument_that_is_null_stays_in_json_and_is_a_lacking_key_in_a_struct(tmp_path: Path) -> None:
    calls = [
        {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}
        for name, arguments in (("rain", {"city": "Oslo", "day": None}), ("time", {"zone": "CET"}))
    ]
    rows = [{"messages": [ASKED, call]} for call in calls]
    for name, expected in (("a.jsonl", {"city": "Oslo", "day": None}), ("a.parquet", {"city": "Oslo"})):
        first, second = chats(write(tmp_path / name, rows))
        assert first.messages[1]["tool_calls"][0]["function"]["arguments"] == expected
        assert second.messages[1]["tool_calls"][0]["function"]["arguments"] == {"zone": "CET"}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "the chat has no message"),
        ([ASKED, {"role": "assistant", "content": " "}], "message 1, of the assistant, is empty"),
        ([{"role": "user"}, SAID], "message 0 has no content"),
        ([{"role": "", "content": "a"}, SAID], "message 0 has no role"),
        ([ASKED, {"role": "assistant", "content": "a\0b"}], "holds a NUL"),
        ([{"from": "human", "value": "a"}], "message 0 has 'from' and 'value'"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "message 0 is a list of parts"),
    ],
)
def test_what_is_no_chat_is_refused_with_its_row(path: Path, messages: list[dict[str, Any]], words: str) -> None:
    rows = [{"messages": messages}]
    if "from" not in str(messages) and "parts" not in words:  # a column of Parquet has one type of values
        rows.insert(0, {"messages": [ASKED, SAID]})
    with pytest.raises(InvalidFile, match=f"column 'messages'.*(line|row) [012].*{words}"):
        chats(write(path, rows))


def test_the_text_of_a_chat_is_no_text_to_learn(path: Path) -> None:
    write(path, [{"text": json.dumps([ASKED, SAID])}])
    with pytest.raises(InvalidFile, match="the text is the JSON of a chat; store the lists themselves"):
        chats(path, "text")


def test_chats_are_for_a_language_model_alone(path: Path) -> None:
    write(path, [{"messages": [ASKED, SAID], "label": "a"}])
    with pytest.raises(InvalidFile, match="chats are for a causal-lm"):
        read_dataset(path, task="text-classification", input_column="messages", target_columns=("label",))
    with pytest.raises(InvalidFile, match="upload it with input_column=messages"):
        read_dataset(path, task="causal-lm")


def test_shards_read_as_the_file_does(path: Path, tmp_path: Path) -> None:
    write(
        path, [{"prompt": [ASKED, CALL, ANSWER], "completion": [SAID], "tools": TOOLS}, {"prompt": [ASKED], "completion": [SAID]}]
    )
    columns: dict[str, Any] = {"task": "causal-lm", "input_column": "prompt", "target_columns": ["completion"]}
    folder = tmp_path / "shards"
    described = inspect_dataset(path, filename=path.name, shards=folder, **columns)
    assert inspect_dataset(folder, filename="shards", **columns) == described
    of_file, of_shards = (read_dataset(each, **columns).splits["train"] for each in (path, folder))
    assert [type(each) for each in [*of_shards.inputs, *of_shards.targets["completion"]]] == [Chat] * 4
    assert (of_shards.inputs, of_shards.targets) == (of_file.inputs, of_file.targets)
