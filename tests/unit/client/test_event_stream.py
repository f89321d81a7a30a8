"""Server-sent events to messages."""

from service.client.event_stream import Message, read_lines, read_messages


def test_messages_are_told_apart_by_empty_lines_and_comments_are_dropped() -> None:
    lines = [": still here", "", "id: 7", "event: metrics", "data: {}", "", "id:8", "data:x", "", "data: cut off"]
    assert list(read_messages(lines)) == [Message(id="7", event="metrics", data="{}"), Message(id="8", event="message", data="x")]


def test_several_data_lines_are_one_text_and_the_id_holds_until_the_next() -> None:
    lines = ["id: 1", "data: a", "data:", "data:  b", "", "data: c", ""]
    assert [(message.id, message.data) for message in read_messages(lines)] == [("1", "a\n\n b"), ("1", "c")]


def test_lines_end_as_the_standard_says_and_nowhere_else() -> None:
    chunks = ["data: a\u2028b\x0c\x85c\r", "\ndata: d\rda", "ta: e\n", "\n: cut off"]
    assert list(read_lines(chunks)) == ["data: a\u2028b\x0c\x85c", "data: d", "data: e", ""]
