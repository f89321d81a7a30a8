"""What is checked of chats, and written after their prompts, is the same of rows on disk and of rows in memory."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.worker.data.text.chat_templates import CHATML
from tests.unit.worker.data.text.test_on_disk import both, chats
from tests.unit.worker.training.test_causal_lm import method, network
from worker.data.samples import Samples
from worker.data.tensors import read_rows
from worker.data.text.language_preprocessing import LanguagePreprocessing
from worker.errors import JobFault
from worker.training.causal_lm import LanguageTeacher, generate_texts
from worker.training.chats import check_chats

CPU = torch.device("cpu")


def samples_of_both(folder: Path, *, with_prompts: bool, length: int) -> list[Samples]:
    """The rows of the same chats in memory and on disk."""
    data = both("causal-lm", chats(with_prompts=with_prompts), folder, input="messages", targets=[])
    reads = LanguagePreprocessing(CHATML.tokenizer(), length, reads_chats=True)
    return [Samples.of(each.splits["train"], reads, device=CPU) for each in data]


def teacher_of(length: int, samples: Samples | None = None) -> LanguageTeacher:
    tokenizer = CHATML.tokenizer()
    framing = LanguagePreprocessing(tokenizer, length).framing
    return LanguageTeacher(network(4, vocabulary=len(tokenizer), positions=length), framing, length, samples)


@pytest.mark.parametrize(
    ("learns", "words"),
    [
        (method("jsd"), "29 of 290 chats of the training split, the first in row 7, have no turn"),
        (method("sequence", label_weight=0.0, max_new_tokens=70), r"The prompt of row \d+ has \d+ tokens, and a row of 90"),
        (method("uld"), r"read other turns of \d+ chats, the first in row \d+"),
    ],
)
def test_faults_are_told_with_the_same_words(learns: Any, words: str, tmp_path: Path) -> None:
    with_prompts = learns.name != "uld"
    samples = samples_of_both(tmp_path, with_prompts=with_prompts, length=90)
    (tmp_path / "other").mkdir()
    others = [None, None] if with_prompts else samples_of_both(tmp_path / "other", with_prompts=False, length=70)
    told = []
    for own, theirs in zip(samples, others, strict=True):
        with pytest.raises(JobFault, match=words) as fault:
            check_chats(learns, own, teacher_of(90, theirs))
        told.append(str(fault.value))
    assert told[0] == told[1]


def test_a_teacher_writes_the_same_answers_and_they_stay_on_disk(tmp_path: Path) -> None:
    writes, teacher = method("sequence", max_new_tokens=3, decoding="sampling"), teacher_of(120)
    in_memory, on_disk = (
        generate_texts(writes, teacher, samples.first(40), seed=1, after_batch=lambda done: None)
        for samples in samples_of_both(tmp_path, with_prompts=True, length=90)
    )
    rows = torch.arange(40)
    assert on_disk.mask is not None
    assert on_disk.inputs is not in_memory.inputs
    assert torch.equal(read_rows(on_disk.inputs, rows), read_rows(in_memory.inputs, rows))  # type: ignore[arg-type]
    assert torch.equal(on_disk.mask.select(rows), in_memory.labels)
