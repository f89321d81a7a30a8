"""Chat templates in the ways of known families, in our own words, and a tokenizer for each; chats to write with them.

In a template that can be marked, ``⟦`` and ``⟧`` stand around what the assistant says, with its end token.
"""

import json
from dataclasses import dataclass
from typing import Any

from tests.unit.worker.data.text.test_tokenization import some_texts
from worker.data.text.tokenization import train_tokenizer

MARKUP = ["<|im_start|>", "<|im_end|>", "<|begin|>", "<|header|>", "<|/header|>", "<|eot|>", "<s>", "</s>", "[INST]", "[/INST]"]


@dataclass(frozen=True)
class Family:
    """A template and the tokens that its tokenizer begins and ends texts with."""

    template: str
    start: str | None
    end: str

    @property
    def plain(self) -> str:
        """The template without marks."""
        return self.template.replace("⟦", "").replace("⟧", "")

    @property
    def marked(self) -> str:
        """The template with the library's marks."""
        return self.template.replace("⟦", "{% generation %}").replace("⟧", "{% endgeneration %}")

    def tokenizer(self, template: str | None = None) -> Any:
        """A tokenizer with this template, or another one; it pads with its end token, and puts its start token before texts."""
        trained = train_tokenizer([*some_texts(), "system user assistant tool\n\n"], "bpe", 400, splits_special_tokens=False)
        trained.add_special_tokens({"additional_special_tokens": MARKUP})
        trained.eos_token = trained.pad_token = self.end
        trained.bos_token = self.start
        trained.chat_template = template or self.plain
        return trained


FAMILIES = {
    "ChatML": Family(
        "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nbe brief<|im_end|>\n{% endif %}"
        "{% if m.role == 'assistant' %}<|im_start|>assistant\n⟦{{ m.content }}<|im_end|>⟧{{ '\n' }}{% else %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        None,
        "<|im_end|>",
    ),
    "Llama 3": Family(
        "{{ bos_token }}{% for m in messages %}{{ '<|header|>' + m.role + '<|/header|>\n\n' }}"
        "{% if m.role == 'assistant' %}⟦{{ m.content | trim }}<|eot|>⟧"
        "{% else %}{{ m.content | trim }}<|eot|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|header|>assistant<|/header|>\n\n' }}{% endif %}",
        "<|begin|>",
        "<|eot|>",
    ),
    "Mistral": Family(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
        "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
        "{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
        "{% if m.role == 'user' %}{{ '[INST] ' + (system if loop.first else '') + m.content + ' [/INST]' }}"
        "{% else %}⟦{{ ' ' + m.content + eos_token }}⟧{% endif %}{% endfor %}",
        "<s>",
        "</s>",
    ),
    "Qwen": Family(
        "{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}{{ tool | tojson }}{{ '\n' }}{% endfor %}"
        "<|im_end|>\n{% endif %}"
        "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n⟦{{ m.content or '' }}"
        "{% for call in m.tool_calls or [] %}"
        "{{ '<tool_call>' + (call.function | tojson) + '</tool_call>' }}{% endfor %}<|im_end|>⟧{{ '\n' }}"
        "{% elif m.role == 'tool' %}{% if messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
        "{{ '\n<tool_response>' + m.content + '</tool_response>' }}"
        "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
        "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        None,
        "<|im_end|>",
    ),
}
CHATML = FAMILIES["ChatML"]

# ChatML that leaves open what the assistant said, each in its own way.
THINKS = CHATML.plain.replace(
    "<|im_start|>assistant\n{{ m.content }}",
    "<|im_start|>assistant\n{{ m.content if loop.last else m.content.split('</think>')[-1] }}",
)
"""The thoughts of earlier turns are taken away."""
ENDS_ONCE = CHATML.plain.replace("{{ m.content }}<|im_end|>", "{{ m.content }}{% if loop.last %}<|im_end|>{% endif %}")
"""The last turn alone has its end."""
COUNTS = "{{ messages | length }}\n" + CHATML.plain
"""It begins with how many turns there are."""
DATED = "{{ strftime_now('%d %B %Y') }}\n" + CHATML.plain
ENDLESS = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
MARKS_IN_A_MACRO = (
    "{% macro turn(m) %}<|im_start|>{{ m.role }}\n{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% endmacro %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ turn(m) }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
)

SYSTEM = {"role": "system", "content": "cabe dab"}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]


def turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def exchange(number: int) -> list[dict[str, Any]]:
    """A question and its answer."""
    question, answer = some_texts(2, seed=number)
    return [turn("user", question), turn("assistant", answer)]


def called(name: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": {"a": 1}}}],
    }


PLAIN_CHATS: dict[str, list[dict[str, Any]]] = {
    "one exchange": exchange(1),
    "three exchanges": [*exchange(1), *exchange(2), *exchange(3)],
    "a system turn": [SYSTEM, *exchange(4), *exchange(5)],
    "an open end": [*exchange(6), turn("user", "dag?")],
    "markup in a turn": [turn("user", "<|im_end|> and </s>"), turn("assistant", json.dumps({"a": "ß"}))],
}
TOOL_CHATS: dict[str, list[dict[str, Any]]] = {
    "a call": [turn("user", "1+1"), called("add"), turn("tool", "2"), turn("assistant", "two")],
    "two calls": [
        turn("user", "1+1"),
        called("add"),
        turn("tool", "2"),
        turn("tool", "3"),
        turn("assistant", "2 or 3"),
        *exchange(7),
    ],
}
