"""Methods whose answers are kept on their object, and die with it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def memoized(method: Callable[P, R]) -> Callable[P, R]:
    """Compute a method once per argument.

    `functools.lru_cache` around a bound method ties the object into a reference cycle; a linter that goes over thousands
    of files cannot wait for the collector to let go of each.
    """
    name = f"_{method.__name__}_answers"

    @wraps(method)
    def answer(*args: P.args, **kwargs: P.kwargs) -> R:
        owner, *rest = cast("tuple[Any, ...]", args)
        answers: dict[Hashable, R] = owner.__dict__.setdefault(name, {})
        key = tuple(rest)
        if key not in answers:
            answers[key] = method(*args, **kwargs)
        return answers[key]

    return answer
