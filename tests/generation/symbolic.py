"""A stand-in for torch: gradients are lists of micro-batches with weights, and every event is written down with its line."""

from __future__ import annotations

import builtins
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any, TypeVar

FILENAME = "<generated>"
Found = TypeVar("Found")
MODULES = ("model", "generator", "discriminator", "encoder", "decoder")
ROLES = {
    "net": "model",
    "network": "model",
    "loss_fn": "criterion",
    "data_loader": "loader",
    "batches": "loader",
    "opt": "optimizer",
    "optim": "optimizer",
    "accum_steps": "n",
    "every": "n",
    "netG": "generator",
    "netD": "discriminator",
}
SCALE = 65536.0  # where GradScaler starts


@dataclass
class Share:
    """One micro-batch in a gradient: its weight, the event that added it, and whether a step has used it."""

    sample: int
    weight: float
    backward: Event
    used: bool = False


@dataclass(eq=False)
class Event:
    """What happened: `loss`, `backward`, `step` or `zero`, in which turn, at which line, to which parameters.

    Attributes:
        shares: of a step, what its parameters' gradients held; of a zero, what it threw away.
        losses: numbers of the losses that were computed or back-propagated.
    """

    kind: str
    turn: int
    line: int
    parameters: frozenset[str]
    shares: dict[str, list[Share]] = field(default_factory=dict)
    losses: frozenset[int] = frozenset()


class Trace:
    """The record of one run.

    Args:
        bad: samples whose loss is not finite.
        failing: samples whose forward raises.
    """

    def __init__(self, bad: frozenset[int] = frozenset(), failing: frozenset[int] = frozenset()) -> None:
        self.events: list[Event] = []
        self.turn = 0
        self.bad = bad
        self.failing = failing
        self.losses = count()
        self.parameters: dict[str, Parameter] = {}

    def note(
        self, kind: str, parameters: Iterable[str], shares: dict[str, list[Share]] | None = None, losses: frozenset[int] = frozenset()
    ) -> Event:
        event = Event(kind, self.turn, _line(), frozenset(parameters), shares or {}, losses)
        self.events.append(event)
        return event

    def batches(self, length: int, rows: int) -> Batches:
        """A loader of batches with so many samples each."""
        return Batches(self, length, rows)


def _line() -> int:
    """The line of the program that is being executed."""
    frame = sys._getframe()
    while frame.f_code.co_filename != FILENAME:
        assert frame.f_back is not None
        frame = frame.f_back
    return frame.f_lineno


class Batches:
    """A loader: every `next` starts a turn. Samples have numbers of their own, also in later epochs."""

    def __init__(self, trace: Trace, length: int, rows: int) -> None:
        self.trace, self.length, self.rows = trace, length, rows
        self.samples = count()

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.length):
            self.trace.turn += 1
            samples = [next(self.samples) for _ in range(self.rows)]
            yield Tensor(self.trace, samples), Tensor(self.trace, samples)


class Tensor:
    """Samples, and through which parameters each of them went."""

    def __init__(
        self,
        trace: Trace,
        samples: Iterable[int],
        reached: Mapping[tuple[str, int], float] | None = None,
        losses: frozenset[int] = frozenset(),
    ) -> None:
        self.trace = trace
        self.samples = tuple(samples)
        self.reached = dict(reached or {})
        self.losses = losses

    def chunk(self, parts: int) -> list[Tensor]:
        size = -(-len(self.samples) // parts)
        return [Tensor(self.trace, self.samples[start : start + size]) for start in range(0, len(self.samples), size)]

    def detach(self) -> Tensor:
        return Tensor(self.trace, self.samples)

    def item(self) -> float:
        return float("nan") if self.trace.bad & set(self.samples) else 1.0

    def times(self, factor: float) -> Tensor:
        return Tensor(self.trace, self.samples, {key: weight * factor for key, weight in self.reached.items()}, self.losses)

    def __truediv__(self, divisor: float) -> Tensor:
        return self.times(1 / divisor)

    def __add__(self, other: Tensor) -> Tensor:
        reached = dict(self.reached)
        for key, weight in other.reached.items():
            reached[key] = reached.get(key, 0.0) + weight
        return Tensor(self.trace, {*self.samples, *other.samples}, reached, self.losses | other.losses)

    def backward(self) -> None:
        event = self.trace.note("backward", {name for name, _ in self.reached}, losses=self.losses)
        for (name, sample), weight in self.reached.items():
            self.trace.parameters[name].shares.append(Share(sample, weight, event))


class Parameter:
    """A parameter's gradient; setting `.grad` to None clears it."""

    def __init__(self, trace: Trace, name: str) -> None:
        self.trace, self.name = trace, name
        self.shares: list[Share] = []
        trace.parameters[name] = self

    @property
    def grad(self) -> list[Share] | None:
        return self.shares or None

    @grad.setter
    def grad(self, value: None) -> None:
        clear(self.trace, [self])


def clear(trace: Trace, parameters: list[Parameter]) -> None:
    trace.note("zero", (p.name for p in parameters), {p.name: p.shares for p in parameters})
    for parameter in parameters:
        parameter.shares = []


class Module:
    """One parameter that every sample goes through."""

    def __init__(self, trace: Trace, name: str) -> None:
        self.trace = trace
        self.parameter = Parameter(trace, name)

    def __call__(self, batch: Tensor) -> Tensor:
        if self.trace.failing & set(batch.samples):
            raise RuntimeError("out of memory")
        own = {(self.parameter.name, sample): 1.0 for sample in batch.samples}
        return Tensor(self.trace, batch.samples, {**batch.reached, **own})

    def parameters(self) -> list[Parameter]:
        return [self.parameter]

    def zero_grad(self) -> None:
        clear(self.trace, [self.parameter])

    def train(self) -> Module:
        return self


def criterion(output: Tensor, target: Tensor) -> Tensor:
    event = output.trace.note("loss", {name for name, _ in output.reached}, losses=frozenset({next(output.trace.losses)}))
    return Tensor(output.trace, output.samples, output.reached, event.losses)


class Optimizer:
    """Steps mark what they use."""

    def __init__(self, parameters: Iterable[Parameter], lr: float = 0.0) -> None:
        self.parameters = list(parameters)
        self.trace = self.parameters[0].trace
        self.unscaled = False

    def zero_grad(self, set_to_none: bool = True) -> None:
        clear(self.trace, self.parameters)

    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        if closure is not None:
            closure()
        held = {p.name: [Share(s.sample, s.weight, s.backward, s.used) for s in p.shares] for p in self.parameters}
        self.trace.note("step", held, held)
        for share in (share for parameter in self.parameters for share in parameter.shares):
            share.used = True


class GradScaler:
    """Losses are scaled up, gradients down again before the step."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self.unscaled: set[Optimizer] = set()

    def scale(self, loss: Tensor) -> Tensor:
        return loss.times(SCALE)

    def unscale_(self, optimizer: Optimizer) -> None:
        self.unscaled.add(optimizer)
        for share in (share for parameter in optimizer.parameters for share in parameter.shares):
            share.weight /= SCALE

    def step(self, optimizer: Optimizer) -> None:
        if optimizer not in self.unscaled:
            self.unscale_(optimizer)
        optimizer.step()

    def update(self) -> None:
        self.unscaled.clear()


TORCH = SimpleNamespace(
    optim=SimpleNamespace(SGD=Optimizer, AdamW=Optimizer, LBFGS=Optimizer),
    amp=SimpleNamespace(GradScaler=GradScaler),
    nn=SimpleNamespace(utils=SimpleNamespace(clip_grad_norm_=lambda parameters, max_norm: None)),
    autocast=lambda *arguments, **options: nullcontext(),
    isfinite=lambda loss: not loss.trace.bad & set(loss.samples),
)


def run(source: str, length: int, rows: int, trace: Trace, **settings: object) -> list[Event]:
    """Run a program's `train`, or its `Trainer`, and give what happened.

    Args:
        source: the program.
        length: batches per epoch.
        rows: samples per batch.
        trace: receives the events.
        settings: for parameters of these names.
    """
    given: dict[str, Any] = {name: Module(trace, name) for name in MODULES}
    given |= {"optimizer": Optimizer(given["model"].parameters()), "loader": trace.batches(length, rows), "criterion": criterion}
    execute(source, {**settings, **given}, TORCH)
    return trace.events


def execute(source: str, given: Mapping[str, Any], torch: object) -> None:
    """Run a program with this torch; every parameter gets what is given under its name.

    A trainer without a loop of its own is called once per batch.
    """

    def find(name: str, *rest: object) -> object:
        return torch if name == "torch" else builtins.__import__(name, *rest)  # type: ignore[arg-type]

    namespace: dict[str, Any] = {
        "__builtins__": {**vars(builtins), "__import__": find, "print": lambda *values: None},
        "__name__": "generated",
    }
    exec(compile(source, FILENAME, "exec"), namespace)  # the program is this package's own

    def call(function: Callable[..., Found]) -> Found:
        wanted = inspect.signature(function).parameters
        return function(**{name: given[ROLES.get(name, name)] for name in wanted if ROLES.get(name, name) in given})

    if "Trainer" not in namespace:
        call(namespace["train"])
        return
    trainer = call(namespace["Trainer"])
    if hasattr(trainer, "fit"):
        call(trainer.fit)
        return
    for _ in range(given["epochs"]):
        for x, y in given["loader"]:
            trainer.training_step(x, y)
