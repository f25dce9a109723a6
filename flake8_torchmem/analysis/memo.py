"""Methods whose answers are kept on their object, and die with it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
UNKNOWN: Any = object()


def memoized(method: Callable[P, R]) -> Callable[P, R]:
    """Compute a method once per argument; arguments are given by position.

    `functools.lru_cache` around a bound method ties the object into a reference cycle; a linter that goes over thousands
    of files cannot wait for the collector to let go of each.
    """
    name = f"_{method.__name__}_answers"

    def answer(owner: Any, *key: Hashable) -> R:  # noqa: ANN401
        kept = owner.__dict__
        answers: dict[Hashable, R] | None = kept.get(name)
        if answers is None:
            answers = kept[name] = {}
        found: R = answers.get(key, UNKNOWN)
        if found is UNKNOWN:
            found = answers[key] = method(owner, *key)  # type: ignore[arg-type, call-arg]
        return found

    return cast("Callable[P, R]", wraps(method)(answer))
