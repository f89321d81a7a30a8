"""Questions that arrive while a statement runs share the next one: however many ask at once, one statement is under way.

An answer is never older than its question, because its statement begins after the question arrived; and nothing is kept between
two statements.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Coalescer(Generic[Question, Answer]):
    """Collects questions and has them answered together, one collection after the other."""

    def __init__(self, answer: Callable[[list[Question]], Awaitable[Mapping[Question, Answer]]]) -> None:
        """``answer`` receives the questions, which may repeat each other, and returns what it found to each of them."""
        self._answer = answer
        self._questions: list[Question] = []
        """Those that the next statement answers; they have waited since the last one began."""
        self._next: asyncio.Task[Mapping[Question, Answer]] | None = None
        self._current: asyncio.Task[Mapping[Question, Answer]] | None = None

    async def ask(self, question: Question) -> Answer:
        """Answers one question. Raises what answering them together raised.

        The caller may be cancelled: others wait for the same statement, which goes on.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._answer_after(self._current))
        self._questions.append(question)
        answers = await asyncio.shield(self._next)
        return answers[question]

    async def _answer_after(self, last: "asyncio.Task[Mapping[Question, Answer]] | None") -> Mapping[Question, Answer]:
        if last is not None:
            await asyncio.wait([last])
        self._current, self._next = self._next, None
        questions, self._questions = self._questions, []
        return await self._answer(questions)
