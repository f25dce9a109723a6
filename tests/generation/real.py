"""The same programs on torch itself: a module multiplies one-hot rows by ones, so its gradient lists the samples with their weights."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from tests.generation.symbolic import MODULES, Event, execute

Shares = dict[str, dict[int, float]]
Torch = Any  # the module, and what it makes: tests are checked where it is not installed
VANISHED = 1e-30  # what is unscaled at every step and never cleared


def symbolic_shares(events: list[Event]) -> list[Shares]:
    """What each step of a symbolic run used: by parameter, the weight of every sample."""
    found: list[Shares] = []
    for event in events:
        if event.kind != "step":
            continue
        shares: Shares = {}
        for name, parts in event.shares.items():
            weights: dict[int, float] = {}
            for part in parts:
                weights[part.sample] = weights.get(part.sample, 0.0) + part.weight
            shares[name] = {sample: weight for sample, weight in weights.items() if weight > VANISHED}
        found.append(shares)
    return found


def real_shares(
    torch: Torch, source: str, length: int, rows: int, epochs: int, bad: frozenset[int] = frozenset(), **settings: object
) -> tuple[list[Shares], Exception | None]:
    """What each step of a real run uses, and the error that ended it, if one did."""
    samples = length * rows * epochs
    modules = {name: _module(torch, samples) for name in MODULES}
    names = {id(module.weight): name for name, module in modules.items()}
    found: list[Shares] = []

    def before_step(optimizer: Torch, *rest: object) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        found.append({names[id(p)]: {} if p.grad is None else _weights(p.grad) for p in parameters})

    def criterion(output: Torch, target: Torch) -> Torch:
        spoiled = bad & set(target.sum(0).nonzero().flatten().tolist())
        return output.sum() * float("nan") if spoiled else output.sum()

    given = {**settings, **modules, "criterion": criterion, "loader": _Batches(torch, length, rows, samples), "epochs": epochs}
    given["optimizer"] = torch.optim.SGD(modules["model"].parameters(), lr=0.0)
    handle = import_module("torch.optim.optimizer").register_optimizer_step_pre_hook(before_step)
    try:
        execute(source, given, torch)
    except (RuntimeError, AssertionError) as error:  # a scaler without gradients, a graph whose weights have moved
        return found, error
    finally:
        handle.remove()
    return found, None


def _weights(gradient: Torch) -> dict[int, float]:
    return {index: value for index, value in enumerate(gradient.tolist()) if value > VANISHED}


def _module(torch: Torch, samples: int) -> Torch:
    class Ones(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(samples))

        def forward(self, batch: Torch) -> Torch:
            return self.weight * batch

    return Ones()


class _Batches:
    """One-hot rows; samples have numbers of their own, also in later epochs."""

    def __init__(self, torch: Torch, length: int, rows: int, samples: int) -> None:
        self.torch, self.length, self.rows = torch, length, rows
        self.eye = torch.eye(samples)
        self.start = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[Torch, Torch]]:
        for _ in range(self.length):
            batch = self.eye[self.start : self.start + self.rows]
            self.start += self.rows
            yield batch, batch
