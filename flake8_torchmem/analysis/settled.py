"""Methods that judge a binding by what it is made of, however long the way from binding to binding is.

Python's stack holds about a hundred bindings that are each made of the one before. A function of two hundred lines `x = x + y` has more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Generic, TypeVar

Owner = TypeVar("Owner")
Key = TypeVar("Key")
R = TypeVar("R")
UNKNOWN: Any = object()
MAX_LEVELS = 30


class _Nested(threading.local):
    """How many answers wait for one another."""

    levels = 0


_nested = _Nested()


@dataclass(eq=False, slots=True)
class _Question(Generic[R]):
    """One that is asked; `start` is what is said while it is answered."""

    answers: dict[Any, R]
    key: object
    start: R
    find: Callable[[], R]


class _TooDeepError(Exception):
    """Carries a question out that is to be answered before those that led to it."""

    def __init__(self, question: _Question[Any]) -> None:
        super().__init__()
        self.question = question


def settled(start: R) -> Callable[[Callable[[Owner, Key], R]], Callable[[Owner, Key], R]]:
    """Compute a method once per argument; asked again meanwhile, as a value that is made of itself does, it answers `start`."""

    def decorated(method: Callable[[Owner, Key], R]) -> Callable[[Owner, Key], R]:
        name = f"_{method.__name__}_answers"

        @wraps(method)
        def answer(owner: Owner, key: Key) -> R:
            answers: dict[Key, R] | None = owner.__dict__.get(name)
            if answers is None:
                answers = owner.__dict__[name] = {}
            found: R = answers.get(key, UNKNOWN)
            if found is not UNKNOWN:
                return found
            question = _Question(answers, key, start, lambda: method(owner, key))
            return _answered(question) if _nested.levels else _settled(question)

        return answer

    return decorated


def _answered(question: _Question[R]) -> R:
    answers, key = question.answers, question.key
    if _nested.levels >= MAX_LEVELS:
        raise _TooDeepError(question)
    answers[key] = question.start
    _nested.levels += 1
    try:
        found = answers[key] = question.find()
    except RecursionError:  # expressions are deep, too, or the stack has been before
        del answers[key]
        if _nested.levels == 1:
            raise
        raise _TooDeepError(question) from None
    except BaseException:
        del answers[key]
        raise
    finally:
        _nested.levels -= 1
    return found


def _settled(first: _Question[R]) -> R:
    """The answer, after those that are too deep to be found on the way to it; these see it as one that is still being answered."""
    pending: list[_Question[Any]] = [first]
    try:
        while True:
            try:
                found: R = _answered(pending[-1])
            except _TooDeepError as error:
                waiting = pending[-1]
                waiting.answers[waiting.key] = waiting.start
                pending.append(error.question)
                continue
            pending.pop()
            if not pending:
                return found
    except BaseException:
        for question in pending:
            question.answers.pop(question.key, None)
        raise
