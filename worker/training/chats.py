"""What only the rows of chats show: whether a method has answers to learn from, prompts room, and turns their partner.

N chats, L tokens of a row. A chat without an answer is a prompt, whose row has no token with a loss.
"""

from typing import Any

import torch
from torch import Tensor

from service.spec.methods import OnPolicy, SequenceLevel
from worker.data.samples import Batch, Samples
from worker.data.text.language import ids_and_positions, num_turns, prompt_lengths
from worker.errors import JobFault
from worker.training.causal_lm import LanguageTeacher

_PIECE_ROWS = 4096


def check_answers(samples: Samples, *, learner: str) -> None:
    """Raises JobFault if a chat has no answer for the ``learner``."""
    has_none = ~samples.labels[:, 1:].any(dim=1) if samples.mask is None else torch.from_numpy(samples.mask.lengths <= 1)
    without = has_none.nonzero().flatten()
    if len(without):
        raise JobFault(
            "invalid_data",
            f"{len(without):,} of {len(samples):,} chats of the training split, the first in row {int(without[0])}, have no turn "
            f"of the assistant, and {learner} learns from answers.",
            hint="Add answers, or take the method sequence with label_weight 0, and a teacher that exists: it writes them.",
            details={"pointer": "/method"},
        )


def check_chats(method: Any, samples: Samples, teacher: LanguageTeacher) -> None:
    """Checks the chats of a student beside its teacher.

    Raises:
        JobFault: the method learns from answers, and a chat has none; a prompt would be cut; or two networks with tokenizers of
            their own read other turns of a chat.
    """
    if not _writes_all(method):
        check_answers(samples, learner=method.name)
    if isinstance(method, SequenceLevel | OnPolicy):
        _check_room(method, samples, teacher)
    if teacher.samples is not None:
        _check_turns(samples, teacher.samples)


def _writes_all(method: Any) -> bool:
    """Whether the networks write all that the student learns from."""
    if isinstance(method, SequenceLevel):
        return method.label_weight == 0
    return isinstance(method, OnPolicy) and method.student_share == 1


def _check_room(method: SequenceLevel | OnPolicy, samples: Samples, teacher: LanguageTeacher) -> None:
    pieces = torch.split(torch.arange(len(samples)), _PIECE_ROWS)
    prompts = torch.cat([_prompt_lengths(samples.batch(rows), method, teacher) for rows in pieces])
    most = teacher.row_tokens - method.max_new_tokens
    if (longest := int(prompts.max())) > most:
        raise JobFault(
            "invalid_spec",
            f"The prompt of row {int(prompts.argmax())} has {longest:,} tokens, and a row of {teacher.row_tokens:,} leaves "
            f"{most:,} beside {method.max_new_tokens:,} new ones.",
            hint="Lower max_new_tokens, or raise dataset.row_tokens: a prompt without its beginning is no chat.",
            details={"pointer": "/method/max_new_tokens"},
        )


def _check_turns(ours: Samples, theirs: Samples) -> None:
    pieces = torch.split(torch.arange(len(ours)), _PIECE_ROWS)
    turns = [[num_turns(samples.batch(rows).labels) for rows in pieces] for samples in (ours, theirs)]
    others = (torch.cat(turns[0]) != torch.cat(turns[1])).nonzero().flatten()
    if len(others):
        raise JobFault(
            "invalid_spec",
            f"Student and teacher read other turns of {len(others):,} chats, the first in row {int(others[0])}, so that "
            "not every turn has its partner.",
            hint="Raise dataset.row_tokens so that no chat is cut, or give dataset.chat_template to both.",
            details={"pointer": "/dataset/row_tokens"},
        )


def _prompt_lengths(batch: Batch, method: SequenceLevel | OnPolicy, teacher: LanguageTeacher) -> Tensor:
    ids, _ = ids_and_positions(batch.inputs)
    return prompt_lengths(ids, batch.labels, teacher.framing, prompt_tokens=method.prompt_tokens)
