"""Chats as a chat template writes them: token ids, and which of them the assistant said. L tokens of a chat.

What counts is decided by evidence alone: by the template's ``{% generation %}`` marks, or, without them, turn by turn. The chat
before a turn, with the words that ask for it, must be the beginning of the whole chat, in characters and in tokens; the turn is
what follows, up to its end token. A template that leaves it open is refused. Chats are written as the library's
``apply_chat_template`` writes them, which adds no special tokens to the template's.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, NoReturn

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from service.formats.chat import Chat
from worker.data.errors import UnusableRow
from worker.errors import JobFault

POINTER = "/dataset/chat_template"
_MARK = re.compile(r"\{%-?\+?\s*generation\s*[-+]?%\}")
_CHANGES = {"strftime_now": "today's date (strftime_now)", "lipsum": "words drawn at random (lipsum)"}
_CHANGING = "".join(
    f"{{% macro {name}() %}}{{{{ varargs, kwargs, raise_exception({what!r}) }}}}{{% endmacro %}}\n"
    for name, what in _CHANGES.items()
)
"""Takes the place of Jinja's functions that say another thing each time. The line ends are trimmed, as behind every block."""
_HOW_TO_WRITE_TOOLS = "give dataset.chat_template, one that writes tools, or take them out of the data"
_RANDOM = re.compile(r"\|\s*random\b")
_TAIL = 20
"""Last characters of an answer, by which it is found in what a template marks."""
_BATCH = 256

Message = dict[str, Any]


@dataclass(frozen=True)
class ReadChat:
    """The tokens of a chat."""

    ids: list[int]
    counted: list[bool]
    """Which tokens have a loss; none of a chat without an answer, which is a prompt."""
    is_open: bool = False
    """Whether it awaits an answer behind its last token."""
    says_markup: bool = False
    """Whether a message itself holds the name of a special token, which is read as that token."""
    lost_turns: int = 0
    """Messages that were left out, the oldest ones."""


@dataclass(frozen=True)
class _Written:
    """A chat as text."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """Characters of the turns that count, in order."""
    before: tuple[str, ...] = ()
    """Without marks, what is written before each of the turns."""
    is_open: bool = False
    says_markup: bool = False


class ChatTemplate:
    """A template with the tokenizer that reads what it writes; ``end`` is the token that ends an answer."""

    def __init__(self, tokenizer: Any, template: str | None, *, end: int) -> None:
        self._tokenizer, self._template, self._end = tokenizer, template, end
        self._variables = tokenizer.special_tokens_map
        special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._markup = re.compile("|".join(map(re.escape, special)) or "(?!)")

    def read(self, chats: Sequence[str], answers: Sequence[str] | None, *, length: int, cuts: bool) -> Iterator[ReadChat]:
        """Reads each chat, with its answer if it has one of its own, which alone counts then.

        A chat longer than ``length`` tokens loses its oldest turns, but for the system's and the last exchange, with ``cuts``.

        Raises:
            UnusableRow: a chat cannot be written or read, or it is not certain what of it counts.
            JobFault: nothing is certain about the template.
        """
        for first in range(0, len(chats), _BATCH):
            numbers = range(first, min(first + _BATCH, len(chats)))
            rows = [self._parts(chats[number], None if answers is None else answers[number], number) for number in numbers]
            written = [self._write(*row, number=number) for row, number in zip(rows, numbers, strict=True)]
            for number, row, made in zip(numbers, rows, self._encode(written, first=first), strict=True):
                yield self._shortened(*row, number=number, length=length) if cuts and len(made.ids) > length else made

    def text(self, chat: str, answer: str | None, *, number: int) -> str:
        """The chat as it is written."""
        return self._write(*self._parts(chat, answer, number), number=number).text

    @staticmethod
    def _parts(chat: str, answer: str | None, number: int) -> tuple[list[Message], int, list[Any] | None]:
        """The messages, how many of them are given before what counts, and the tools."""
        if not isinstance(chat, Chat) or (answer is not None and not isinstance(answer, Chat)):
            raise TypeError(f"row {number} holds a text, and no chat")
        messages = chat.messages
        after = [] if answer is None else answer.messages
        return messages + after, len(messages) if after else 0, chat.tools

    def _shortened(self, messages: list[Message], given: int, tools: list[Any] | None, *, number: int, length: int) -> ReadChat:
        """The chat without as many of its oldest exchanges as do not fit; the last one stays, however long."""
        system = next((at for at, message in enumerate(messages) if message["role"] not in ("system", "developer")), 0)
        starts = [
            at for at, message in enumerate(messages) if at >= system and message["role"] == "user" and (not given or at < given)
        ]
        made, last = None, system
        for last in [system, *(at for at in starts if at > system)]:
            kept = messages[:system] + messages[last:]
            if not given and made is not None and not any(message["role"] == "assistant" for message in kept):
                break
            made = self._encode([self._write(kept, max(0, given - (last - system)), tools, number=number)], first=number)[0]
            made = replace(made, lost_turns=last - system)
            if len(made.ids) <= length:
                break
        assert made is not None
        return made

    # As text.

    def _write(self, messages: list[Message], given: int, tools: list[Any] | None, *, number: int) -> _Written:
        written = self._as_text(messages, given, tools, number=number)
        _check_tools(written, messages[given:], tools, number)
        says_markup = any(self._markup.search(str(message.get("content") or "")) for message in messages)
        return replace(written, says_markup=says_markup)

    def _as_text(self, messages: list[Message], given: int, tools: list[Any] | None, *, number: int) -> _Written:
        template = self._template or self._tokenizer.get_chat_template(None, tools)
        if _RANDOM.search(template):
            raise _changing("what is drawn at random")
        answers = [at for at, message in enumerate(messages) if at >= given and message["role"] == "assistant"]
        if not answers:
            if given:
                raise UnusableRow(number, "its answer has no turn of the assistant: write one, or drop the row")
            return _Written(self._render(template, messages, tools, number=number, asks=True)[0], (), is_open=True)
        is_open, is_marked = not given and answers[-1] + 1 < len(messages), bool(_MARK.search(template))
        text, marks = self._render(template, messages, tools, number=number, asks=is_open, marked=is_marked)
        if marks is None:
            written = self._by_turns(template, messages, answers, tools, text, number=number)
            self._check_said(text, written.spans, [messages[at] for at in answers], "writes", number)
            return replace(written, is_open=is_open)
        start = 0
        if given:
            asked = self._render(template, messages[:given], tools, number=number, asks=True)[0]
            self._check_beginning(asked, text, f"the first {given} messages", number)
            start = len(asked)
        spans = tuple((begin, end) for begin, end in marks if begin >= start and end > begin)
        self._check_said(text, spans, [messages[at] for at in answers], "marks", number)
        return _Written(text, spans, is_open=is_open)

    def _by_turns(
        self, template: str, messages: list[Message], answers: Sequence[int], tools: list[Any] | None, text: str, *, number: int
    ) -> _Written:
        spans, before = [], []
        for at in answers:
            if at == 0:
                raise UnusableRow(
                    number, "the chat begins with a turn of the assistant: begin it with the user's or the system's"
                )
            asked = self._render(template, messages[:at], tools, number=number, asks=True)[0]
            said = text
            if at + 1 < len(messages):
                said = self._render(template, messages[: at + 1], tools, number=number)[0]
            self._check_beginning(asked, said, f"the first {at} messages", number)
            self._check_beginning(said, text, f"the first {at + 1} messages", number)
            spans.append((len(asked), len(said)))
            before.append(asked)
        return _Written(text, tuple(spans), tuple(before))

    def _render(
        self,
        template: str,
        messages: list[Message],
        tools: list[Any] | None,
        *,
        number: int,
        asks: bool = False,
        marked: bool = False,
    ) -> tuple[str, list[tuple[int, int]] | None]:
        """The text, and the characters that the template marks if it is to be ``marked``."""
        try:
            texts, marks = render_jinja_template(
                conversations=[messages],
                tools=tools,
                chat_template=_CHANGING + template,
                return_assistant_tokens_mask=marked,
                add_generation_prompt=asks,
                **self._variables,
            )
        except TemplateError as error:
            if str(error) in _CHANGES.values():
                raise _changing(str(error)) from error
            what = f"the chat template refuses its first {len(messages)} messages: {str(error)[:300] or type(error).__name__}"
            raise UnusableRow(number, f"{what}. Mend the chat, or give dataset.chat_template") from error
        except Exception as error:  # a template is a program: it may fail in any way
            what = f"the chat template fails at its first {len(messages)} messages: {type(error).__name__}: {str(error)[:300]}"
            raise UnusableRow(number, f"{what}. Mend the chat, or give dataset.chat_template") from error
        return texts[0], marks[0] if marked else None

    @staticmethod
    def _check_beginning(first: str, whole: str, what: str, number: int) -> None:
        if whole.startswith(first):
            return
        at = next((place for place, (one, other) in enumerate(zip(first, whole, strict=False)) if one != other), len(whole))
        raise UnusableRow(
            number,
            f"written alone, {what} of the chat are not the beginning of the whole chat: {first[at : at + 40]!r} stands where "
            f"the whole has {whole[at : at + 40]!r}, so it is not certain what the assistant said. Mark its words in "
            "dataset.chat_template by {% generation %}, or give each answer a row of its own, as prompt and completion",
        )

    @staticmethod
    def _check_said(text: str, spans: Sequence[tuple[int, int]], answers: Sequence[Message], how: str, number: int) -> None:
        """Checks that each turn ends with what the assistant said.

        A mark inside a macro or a set block is counted from a wrong place by the library, and covers other words.
        """
        tails = [tail for message in answers if (tail := str(message.get("content") or "").strip()[-_TAIL:])]
        marked = [text[begin:end] for begin, end in spans]
        stray = [each for each in marked if each.strip() and not any(tail in each for tail in tails)]
        if not marked or (stray and not any("tool_calls" in message for message in answers)):
            what = f"{how} {stray[0][:60]!r}, which no turn of the assistant ends with" if marked else f"{how} nothing of it"
            remedy = "its {% generation %} must stand around the assistant's words" if how == "marks" else "give another"
            raise UnusableRow(number, f"the chat template {what}: {remedy}")

    # As tokens.

    def _encode(self, written: Sequence[_Written], *, first: int) -> list[ReadChat]:
        texts = [each.text for each in written]
        before = [text for each in written for text in each.before]
        encoded = self._tokens(texts, first=first, offsets=True)
        beginnings = iter(self._tokens(before, first=first)["input_ids"] if before else ())
        found = []
        for index, each in enumerate(written):
            ids, offsets = encoded["input_ids"][index], encoded["offset_mapping"][index]
            starts = [next(beginnings) for _ in each.before]
            found.append(self._counted(ids, offsets, each, starts, number=first + index))
        return found

    def _tokens(self, texts: Sequence[str], *, first: int, offsets: bool = False) -> Any:
        try:
            return self._tokenizer(
                list(texts),
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                return_offsets_mapping=offsets,
                verbose=False,
            )
        except Exception as error:  # the library raises plain Exception for a character that a tokenizer has no token for
            raise UnusableRow(first, f"the tokenizer cannot read the chat or one soon after it ({str(error)[:200]})") from error

    def _counted(
        self, ids: list[int], offsets: Sequence[tuple[int, int]], chat: _Written, starts: Sequence[list[int]], *, number: int
    ) -> ReadChat:
        if not ids:
            raise UnusableRow(number, "the chat holds no token: fill it, or remove the row")
        counted, turn_of_last = [False] * len(ids), list[int]()
        for turn, (begin, end) in enumerate(chat.spans):
            inside = [place for place, (low, high) in enumerate(offsets) if begin <= low < end or low <= begin < high]
            if starts:
                inside = self._turn(ids, inside, starts[turn], number)
            elif inside and inside[-1] + 1 < len(ids) and ids[inside[-1] + 1] == self._end:
                inside.append(inside[-1] + 1)
            for place in inside:
                counted[place] = True
            turn_of_last = inside or turn_of_last
        if chat.spans and not any(ids[place] == self._end for place in turn_of_last):
            self._refuse_endless(ids, turn_of_last)
        return ReadChat(ids, counted, chat.is_open, chat.says_markup)

    def _turn(self, ids: list[int], inside: list[int], start: list[int], number: int) -> list[int]:
        """The tokens of a turn behind those of ``start``, up to its end token."""
        if ids[: len(start)] != start:
            raise UnusableRow(
                number,
                "the first characters of a turn of the assistant make one token with what the template writes before it: take "
                "white space at its beginning away, or mark its words in dataset.chat_template by {% generation %}",
            )
        turn = [place for place in inside if place >= len(start)]
        last = max((place for place in turn if ids[place] == self._end), default=None)
        if last is None:
            self._refuse_endless(ids, turn)
        return [place for place in turn if place <= last]

    def _refuse_endless(self, ids: list[int], turn: Sequence[int]) -> NoReturn:
        tail = [ids[place] for place in turn[-3:]]
        end = self._tokenizer.decode([self._end])
        raise _fault(
            f"The chat template does not end the assistant's turn with the tokenizer's end token, {end!r}, but with "
            f"{self._tokenizer.decode(tail)!r}: a student of it would not know when to stop",
            "Give dataset.chat_template with {{ eos_token }} behind each answer, or save the tokenizer with the template's own "
            "end as its eos_token.",
        )


def _check_tools(written: _Written, messages: Sequence[Message], tools: Sequence[Any] | None, number: int) -> None:
    """Checks that a template writes the tools and their calls, which many leave out without a word."""
    offered = _names(tools or ())
    if offered and not any(name in written.text for name in offered):
        raise UnusableRow(number, f"the chat template does not write the tools, {offered[0]!r} say: {_HOW_TO_WRITE_TOOLS}")
    said = "".join(written.text[begin:end] for begin, end in written.spans)
    calls = [name for message in messages if message["role"] == "assistant" for name in _names(message.get("tool_calls") or ())]
    for name in calls:
        if name not in said:
            raise UnusableRow(number, f"the chat template does not write the call of the tool {name!r}: {_HOW_TO_WRITE_TOOLS}")


def _names(tools: Sequence[Any]) -> list[str]:
    """The names of tools, or of those that are called."""
    functions = [tool.get("function", tool) for tool in tools]
    return [each["name"] for each in functions if isinstance(each, dict) and isinstance(each.get("name"), str)]


def chat_texts(tokenizer: Any, template: str, chats: Iterable[str], answers: Iterable[str] | None) -> Iterator[str]:
    """What chats are written as between the special tokens, for a tokenizer to be trained on. Raises UnusableRow, JobFault."""
    writer = ChatTemplate(tokenizer, template, end=-1)
    special = re.compile("|".join(map(re.escape, tokenizer.all_special_tokens)))
    for number, (chat, answer) in enumerate(zip(chats, repeat(None) if answers is None else answers, strict=False)):
        yield from filter(None, special.split(writer.text(chat, answer, number=number)))


def template_of(tokenizer: Any) -> str | None:
    """The chat template that a tokenizer comes with, of several by name the usual one; None without any."""
    own = tokenizer.chat_template
    return own.get("default") if isinstance(own, dict) else own


def refuse_without_template() -> NoReturn:
    """Raises JobFault: chats, and nothing that says how to write them."""
    raise _fault(
        "The data are chats, and the tokenizer has no chat template",
        "Give dataset.chat_template (Jinja, as apply_chat_template reads it), or a tokenizer that was saved with one.",
    )


def _changing(what: str) -> JobFault:
    return _fault(
        f"The chat template writes {what} into every chat, so that the same data are read otherwise each time",
        "Give dataset.chat_template: the same template with a text of its own in that place.",
    )


def _fault(message: str, hint: str) -> JobFault:
    return JobFault("invalid_spec", f"{message}.", hint=hint, details={"pointer": POINTER})
