"""What PyTorch does with memory, as the rules say: each pair of programs is run on the stand-in device and counted to the byte.

The network is 64-128-128-10, the batches hold 32 samples. So a batch is 8,192 bytes with labels of 256, the activations that its graph
saves are 40,960 with the batch, an output is 1,280, the parameters are 104,488.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

torch: Any = pytest.importorskip("torch", reason="the verifier runs PyTorch programs")

from flake8_torchmem.verify.backends import VirtualBackend  # noqa: E402
from flake8_torchmem.verify.child import run_once  # noqa: E402
from flake8_torchmem.verify.probe import Probe  # noqa: E402
from flake8_torchmem.verify.series import TURN, Run  # noqa: E402
from flake8_torchmem.verify.verdict import WARM_UP, rate  # noqa: E402

STEPS = 10
BATCH, LABELS, ACTIVATIONS, OUTPUT, SCALAR, PARAMETERS = 8_192, 256, 40_960, 1_280, 4, 104_488
LAYER = 16_384  # one of 128
Tensor: TypeAlias = Any  # PyTorch may be absent where types are checked
Module: TypeAlias = Any
Batches = Iterable[tuple[Tensor, Tensor]]
cross_entropy = torch.nn.functional.cross_entropy


def network() -> Module:
    nn = torch.nn
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)).to("cuda")


def data() -> Batches:
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        yield torch.randn(32, 64, generator=generator).to("cuda"), torch.randint(10, (32,), generator=generator).to("cuda")


def measured(program: Callable[[Batches], object]) -> Run:
    backend = VirtualBackend()
    probe = Probe(backend)
    torch.manual_seed(0)
    with backend.running(probe):
        program(probe.turns(data()))
    return probe.run


def growth(program: Callable[[Batches], object]) -> float | None:
    return rate(measured(program).series(TURN, "live"))


def peak(program: Callable[[Batches], object]) -> int:
    run = measured(program)
    assert rate(run.series(TURN, "live")) == 0
    return max(run.series(TURN, "peak")[WARM_UP:])


def training(keep: Callable[[Tensor, Tensor], object], backward: bool = True, retain: bool = False) -> Callable[[Batches], object]:
    """A loop that hands the loss and the output of every turn to something that keeps them, after the step."""

    def program(batches: Batches) -> None:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for inputs, targets in batches:
            optimizer.zero_grad()
            output = model(inputs)
            loss = cross_entropy(output, targets)
            if backward:
                loss.backward(retain_graph=retain)
                optimizer.step()
            keep(loss, output)

    return program


class Total:
    """What adds up what it is given."""

    def __init__(self) -> None:
        self.value: Tensor = 0.0

    def add(self, value: Tensor) -> None:
        self.value = self.value + value


def adding(make: Callable[[Tensor, Tensor], Tensor], **how: bool) -> Callable[[Batches], object]:
    total = Total()
    return training(lambda loss, output: total.add(make(loss, output)), **how)


def keeping(make: Callable[[Tensor, Tensor], Tensor], **how: bool) -> Callable[[Batches], object]:
    kept: list[Tensor] = []
    return training(lambda loss, output: kept.append(make(loss, output)), **how)


def joining(make: Callable[[Tensor], Tensor]) -> Callable[[Batches], object]:
    def program(batches: Batches) -> None:
        model, joined = network(), torch.empty(0, 10, device="cuda")
        for inputs, _ in batches:
            joined = torch.cat([joined, make(model(inputs))])

    return program


def recurrent(grad: bool) -> Callable[[Batches], object]:
    def program(batches: Batches) -> None:
        model, state = torch.nn.RNN(64, 128).to("cuda"), None
        with torch.set_grad_enabled(grad):
            for inputs, _ in batches:
                _, state = model(inputs[None], state)

    return program


def carried(detach: bool) -> Callable[[Batches], object]:
    """Each turn back-propagates through all turns so far, unless the state is detached."""

    def program(batches: Batches) -> None:
        model, state = torch.nn.RNN(64, 128).to("cuda"), None
        for inputs, _ in batches:
            _, state = model(inputs[None], state if state is None or not detach else state.detach())
            state.sum().backward(retain_graph=True)

    return program


def second_order(clear: Callable[[Tensor], object]) -> Callable[[Batches], object]:
    def program(batches: Batches) -> None:
        model = network()
        for inputs, targets in batches:
            cross_entropy(model(inputs), targets).backward(create_graph=True)
            clear(model)

    return program


def zeroed(model: Module) -> None:
    for parameter in model.parameters():
        parameter.grad.zero_()


def hooked(keep: Callable[[list[Tensor], Tensor], object]) -> Callable[[Batches], object]:
    def program(batches: Batches) -> None:
        model = network()
        kept: list[Tensor] = []
        model[1].register_forward_hook(lambda _module, _inputs, output: keep(kept, output))
        for inputs, targets in batches:
            cross_entropy(model(inputs), targets).backward()
            model.zero_grad()

    return program


def one_slot(kept: list[Tensor], output: Tensor) -> None:
    kept[:] = [output]


def failing(keep: Callable[[list[BaseException], BaseException], object]) -> Callable[[Batches], object]:
    """Every attempt fails after its forward."""

    def attempt(model: Module, inputs: Tensor) -> None:
        hidden = model[:4](inputs)
        raise MemoryError(str(hidden.shape))

    def program(batches: Batches) -> None:
        model = network()
        errors: list[BaseException] = []
        for inputs, _ in batches:
            try:
                attempt(model, inputs)
            except MemoryError as error:  # noqa: PERF203 - that is what is measured
                keep(errors, error)

    return program


def weights(keep: Callable[[list[Tensor], Tensor], object]) -> Callable[[Batches], object]:
    def program(batches: Batches) -> None:
        model = network()
        kept: list[Tensor] = []
        for _ in batches:
            keep(kept, model.state_dict())

    return program


@dataclass(frozen=True)
class Pair:
    """Two programs, and by how many bytes per turn each grows."""

    name: str
    bad: Callable[[Batches], object]
    fixed: Callable[[Batches], object]
    grows: int
    grows_fixed: int = 0


def loss_of(loss: Tensor, _output: Tensor) -> Tensor:
    return loss


def output_of(_loss: Tensor, output: Tensor) -> Tensor:
    return output


def number_of(loss: Tensor, _output: Tensor) -> float:
    return float(loss.item())


def metric_of(_loss: Tensor, output: Tensor) -> Tensor:
    return output.exp().mean()


GRAPH = ACTIVATIONS + OUTPUT + LABELS + SCALAR  # what the graph of a loss saves: its log-probabilities, labels and their number too
PAIRS = [
    Pair("loss added after its backward", adding(loss_of), adding(number_of), 0),
    Pair("metric of the output added", adding(metric_of), adding(lambda _, output: metric_of(_, output).item()), OUTPUT),
    Pair("loss added, no backward", adding(loss_of, backward=False), adding(number_of, backward=False), GRAPH),
    Pair("loss added, graph retained", adding(loss_of, retain=True), adding(number_of, retain=True), GRAPH),
    Pair("loss kept after its backward", keeping(loss_of), keeping(number_of), SCALAR),
    Pair("loss kept, no backward", keeping(loss_of, backward=False), keeping(number_of, backward=False), GRAPH + SCALAR),
    Pair("output kept after the backward", keeping(output_of), keeping(lambda _, output: output.detach().cpu()), OUTPUT),
    Pair("output kept, no backward", keeping(output_of, backward=False), keeping(number_of, backward=False), ACTIVATIONS + OUTPUT),
    Pair("detached output left on the device", keeping(lambda _, out: out.detach()), keeping(lambda _, out: out.detach().cpu()), OUTPUT),
    Pair("view of an output kept", keeping(lambda _, out: out.detach()[0]), keeping(lambda _, out: out.detach()[0].clone()), OUTPUT, 40),
    Pair("state carried on, nothing back-propagates", recurrent(True), recurrent(False), BATCH + 2 * LAYER),
    Pair("state carried on, graph retained, no step", carried(False), carried(True), BATCH + 2 * LAYER),
    Pair("gradients with a graph, zeroed in place", second_order(zeroed), second_order(lambda model: model.zero_grad()), 61_440),
    Pair("hook that keeps every output", hooked(list.append), hooked(one_slot), LAYER),
    Pair("stored exceptions", failing(list.append), failing(lambda _, error: str(error)), ACTIVATIONS),
    Pair("outputs joined with their graphs", joining(lambda out: out), joining(lambda out: out.detach()), ACTIVATIONS + OUTPUT, OUTPUT),
    Pair("copies of the weights", weights(lambda kept, state: kept.append(copy.deepcopy(state))), weights(list.append), PARAMETERS),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_growth(pair: Pair) -> None:
    assert (growth(pair.bad), growth(pair.fixed)) == (pair.grows, pair.grows_fixed)


def test_gradients_are_told_apart_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_arguments: object) -> None:
        raise RuntimeError("Numpy is not available")

    monkeypatch.setattr("torch.Tensor.numpy", absent)
    once, again = (measured(training(lambda _loss, _output: None)).gradients for _ in range(2))
    assert once == again
    assert len({gradient.digest for gradient in once}) == STEPS


def test_nodes_stay_where_a_backward_freed_the_rest() -> None:
    def nodes(program: Callable[[Batches], object]) -> float | None:
        backend = VirtualBackend()
        probe = Probe(backend, nodes=True)
        return rate(run_once(lambda: program(probe.turns(data())), probe, backend).series(TURN, "nodes"))

    bad, fixed = nodes(adding(loss_of)), nodes(adding(number_of))
    assert fixed == 0
    assert bad is not None
    assert bad >= 8  # three layers, two activations, their weights' transposes, the loss and its sum


def clearing(how: str) -> Callable[[Batches], object]:
    """Training that clears its gradients in a way, or not at all."""

    def program(batches: Batches) -> None:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for inputs, targets in batches:
            if how in ("none", "zeros"):
                optimizer.zero_grad(set_to_none=how == "none")
            loss = cross_entropy(model(inputs), targets)
            loss.backward()
            if how == "between":
                optimizer.zero_grad()
            optimizer.step()

    return program


def evaluation(grad: bool) -> Callable[[Batches], object]:
    def program(batches: Batches) -> None:
        model = network()
        with torch.set_grad_enabled(grad):
            for inputs, targets in batches:
                loss = cross_entropy(model(inputs), targets)
                loss.item()

    return program


def retrying(inside: bool) -> Callable[[Batches], object]:
    """What has failed is tried again, while its error is handled or afterwards."""

    def attempt(model: Module, inputs: Tensor, fails: bool) -> None:
        hidden = model[:4](inputs)
        if fails:
            raise MemoryError(str(hidden.shape))

    def program(batches: Batches) -> None:
        model = network()
        for inputs, _ in batches:
            try:
                attempt(model, inputs, fails=True)
            except MemoryError:
                if inside:
                    attempt(model, inputs, fails=False)
            if not inside:
                attempt(model, inputs, fails=False)

    return program


def test_gradients_that_stay_raise_the_peak_and_nothing_grows() -> None:
    peaks = {how: peak(clearing(how)) for how in ("none", "zeros", "never", "between")}
    assert peaks["never"] == peaks["zeros"]
    assert peaks["never"] - peaks["none"] == 98_816  # all gradients but those that are there in either case when the peak is reached
    assert peaks["between"] == peaks["none"]


def test_graphs_that_stay_until_the_next_raise_the_peak_and_nothing_grows() -> None:
    retained, freed = peak(adding(number_of, retain=True)), peak(adding(number_of))
    assert retained - freed == 34_052
    recorded, bare = peak(evaluation(True)), peak(evaluation(False))
    assert recorded - bare == 58_884


def test_a_handler_holds_what_failed() -> None:
    assert peak(retrying(True)) - peak(retrying(False)) == 2 * LAYER  # the batch itself is the loop's


def test_a_hook_that_keeps_one_output_holds_one() -> None:
    assert peak(hooked(one_slot)) - peak(hooked(lambda _kept, _output: None)) in range(LAYER + 1)


def test_a_state_that_is_carried_on_stops_the_training() -> None:
    def program(batches: Batches) -> None:
        model, state = torch.nn.RNN(64, 128).to("cuda"), None
        for inputs, _ in batches:
            _, state = model(inputs[None], state)
            state.sum().backward()

    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        measured(program)


def test_a_state_dict_is_no_copy() -> None:
    def program(batches: Batches) -> None:
        model = network()
        best, copied = model.state_dict(), copy.deepcopy(model.state_dict())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        assert all(torch.equal(best[name], value) for name, value in model.state_dict().items())
        assert not any(torch.equal(copied[name], value) for name, value in model.state_dict().items())
        list(batches)

    measured(program)
