"""Methods whose answers are kept on their object, and die with it."""

from __future__ import annotations

import weakref
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
    code = method.__code__
    if method.__defaults__ or code.co_argcount not in (2, 3):
        return _of_many(method)
    return cast("Callable[P, R]", _OfOne(method) if code.co_argcount == 2 else _OfTwo(method))


class _OfOne:
    """A method with one argument. On each object its place is taken by a dictionary's own look-up: most questions are repeated."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.__doc__ = method.__doc__

    def __set_name__(self, kind: type, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type) -> Any:  # noqa: ANN401
        if owner is None:
            return self
        look_up = owner.__dict__[self.name] = self.look_up(owner)
        return look_up

    def look_up(self, owner: object) -> Callable[..., Any]:
        """What stands for the method on an object."""
        return _Answers(self.method, owner).__getitem__


class _OfTwo(_OfOne):
    """A method with two arguments."""

    def look_up(self, owner: object) -> Callable[..., Any]:
        """What stands for the method on an object."""
        method = self.method
        get = _Answers(lambda it, key: method(it, *key), owner).__getitem__
        return lambda first, second: get((first, second))


class _Answers(dict[Hashable, Any]):
    """What one object's method has answered; it does not keep the object alive, which has it."""

    __slots__ = ("method", "owner")

    def __init__(self, method: Callable[..., Any], owner: object) -> None:
        self.method = method
        self.owner = weakref.ref(owner)

    def __missing__(self, key: Hashable) -> Any:  # noqa: ANN401
        answer = self[key] = self.method(self.owner(), key)
        return answer


def _of_many(method: Callable[P, R]) -> Callable[P, R]:
    """Any method, by a tuple of its arguments."""
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
