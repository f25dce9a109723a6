"""The stand-in device: bytes are exact, values are real, and what it cannot do is refused."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="the verifier runs PyTorch programs")

from flake8_torchmem.verify.backends import CudaBackend  # noqa: E402
from flake8_torchmem.verify.ledger import Ledger  # noqa: E402
from flake8_torchmem.verify.refusal import RefusedError  # noqa: E402
from flake8_torchmem.verify.standin import stand_in  # noqa: E402

MEMORY = 1 << 30


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    books = Ledger()
    with stand_in(books, MEMORY):
        yield books


def test_a_tensor_is_counted_while_it_lives(ledger: Ledger) -> None:
    x = torch.zeros(10, device="cuda")
    assert ledger.live == 40
    assert x.is_cuda
    assert str(x.device) == "cuda:0"
    del x
    assert (ledger.live, ledger.peak) == (0, 40)


def test_the_host_is_not_counted(ledger: Ledger) -> None:
    x = torch.zeros(10)
    assert ledger.live == 0
    assert str(x.device) == "cpu"


def test_a_view_holds_the_whole(ledger: Ledger) -> None:
    x = torch.zeros(10, 10, device="cuda")
    first = x[0]
    assert ledger.live == 400
    del x
    assert ledger.live == 400
    first = first.clone()
    assert ledger.live == 40
    assert first.is_cuda


@pytest.mark.parametrize("layout", ["to_sparse_coo", "to_sparse_csr", "to_sparse_csc"])
def test_a_sparse_tensor_is_its_values_and_its_indices(ledger: Ledger, layout: str) -> None:
    host = getattr(torch.eye(4), layout)()
    x = host.cuda()
    assert x.is_cuda
    assert not host.is_cuda
    size = ledger.live
    assert size == 4 * 4 + sum(part.numel() * 8 for part in indices_of(host))
    assert (x @ torch.ones(4, 2, device="cuda")).cpu().tolist() == [[1.0, 1.0]] * 4
    assert ledger.live == size
    back = x.cpu()
    del x
    assert ledger.live == 0
    assert back.to_dense().sum().item() == 4


def indices_of(tensor: Any) -> list[Any]:  # noqa: ANN401
    names = {torch.sparse_coo: ["_indices"], torch.sparse_csr: ["crow_indices", "col_indices"]}
    return [getattr(tensor, name)() for name in names.get(tensor.layout, ["ccol_indices", "row_indices"])]


def test_sparse_gradients_are_counted(ledger: Ledger) -> None:
    table = torch.nn.Embedding(100, 4, sparse=True).cuda()
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    for _ in range(3):
        table(torch.tensor([1, 2, 3], device="cuda")).sum().backward()
        optimizer.step()
        assert table.weight.grad.is_sparse
        assert table.weight.grad.is_cuda
        optimizer.zero_grad()
    assert ledger.live == 1600


def test_in_place_takes_nothing(ledger: Ledger) -> None:
    x = torch.zeros(10, device="cuda")
    x += 1
    x.mul_(2)
    assert (ledger.live, ledger.peak) == (40, 40)
    assert x.tolist() == [2.0] * 10


def test_the_host_gets_a_copy_of_its_own(ledger: Ledger) -> None:
    x = torch.ones(10, device="cuda")
    y = x.cpu()
    x.zero_()
    assert y.sum().item() == 10
    assert not y.is_cuda
    del x
    assert ledger.live == 0


def test_a_number_takes_nothing(ledger: Ledger) -> None:
    x = torch.ones(10, device="cuda")
    assert x.sum().item() == float(x.sum()) == 10
    assert ledger.live == 40


def test_gradients_come_back_to_their_side(ledger: Ledger) -> None:
    host = torch.ones(10, requires_grad=True)
    (host.cuda() * 2).sum().backward()
    assert host.grad.tolist() == [2.0] * 10
    assert not host.grad.is_cuda
    assert ledger.live == 0


def test_a_module_moves_and_trains(ledger: Ledger) -> None:
    model = torch.nn.Linear(4, 2).to("cuda")
    assert ledger.live == 40
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3, 4, device="cuda")).sum().backward()
    assert ledger.live == 80
    optimizer.step()
    assert ledger.live == 160  # both moments; the counts of steps are the host's
    optimizer.zero_grad()
    assert ledger.live == 120


def test_a_deep_copy_is_on_the_device(ledger: Ledger) -> None:
    model = torch.nn.Linear(4, 2).cuda()
    twin = copy.deepcopy(model)
    assert ledger.live == 80
    assert next(twin.parameters()).is_cuda
    kept = copy.deepcopy(model.state_dict())
    assert ledger.live == 120
    del twin, kept
    assert ledger.live == 40


@pytest.mark.parametrize("foreach", [None, False, True])
def test_a_graph_sees_that_a_step_has_changed_what_it_saved(ledger: Ledger, foreach: bool | None) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=foreach)
    outputs = model(torch.ones(3, 4, device="cuda"))
    outputs.sum().backward(retain_graph=True)
    outputs.sum().backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_recurrent_networks_train(ledger: Ledger, kind: str) -> None:
    model = getattr(torch.nn, kind)(4, 8, batch_first=True).cuda()
    weights = ledger.live
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        outputs, _ = model(torch.ones(2, 5, 4, device="cuda"))
        optimizer.zero_grad()
        outputs.sum().backward()
        optimizer.step()
    del outputs, _
    assert ledger.live == 2 * weights
    optimizer.zero_grad()
    assert ledger.live == weights


def test_autocast_and_scaler(ledger: Ledger) -> None:
    model = torch.nn.Linear(4, 2).cuda()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(torch.ones(3, 4, device="cuda")).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert model.weight.grad.is_cuda
    assert ledger.live > 80


def test_a_checkpoint_remembers_its_device(ledger: Ledger) -> None:
    file = io.BytesIO()
    torch.save({"w": torch.ones(10, device="cuda")}, file)
    assert ledger.live == 0
    file.seek(0)
    back = torch.load(file)
    assert back["w"].is_cuda
    assert ledger.live == 40
    file.seek(0)
    host = torch.load(file, map_location="cpu")
    assert not host["w"].is_cuda
    assert ledger.live == 40


def test_sides_do_not_mix(ledger: Ledger) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device="cuda") + torch.ones(3)
    assert (torch.ones(3, device="cuda") + torch.tensor(1.0)).is_cuda
    with pytest.raises(TypeError, match="cpu"):
        torch.ones(3, device="cuda").numpy()


def test_memory_is_read_as_on_a_device(ledger: Ledger) -> None:
    x = torch.ones(10, device="cuda")
    assert torch.cuda.memory_allocated() == ledger.live == x.untyped_storage().nbytes()
    assert torch.cuda.mem_get_info() == (MEMORY - 40, MEMORY)
    assert torch.cuda.is_available()


@pytest.mark.parametrize("name", ["Stream", "CUDAGraph", "Event"])
def test_what_it_is_not_is_refused(ledger: Ledger, name: str) -> None:
    with pytest.raises(RefusedError, match="the stand-in device has no"):
        getattr(torch.cuda, name)()


def test_torch_compile_is_refused(ledger: Ledger) -> None:
    with pytest.raises(RefusedError, match=r"torch\.compile"):
        torch.compile(torch.nn.Linear(2, 2))


def test_other_devices_are_refused(ledger: Ledger) -> None:
    with pytest.raises(RefusedError, match="mps"):
        torch.ones(2).to("mps")


def test_lines_name_the_program(ledger: Ledger) -> None:
    x = torch.ones(10, device="cuda")
    ((file, _line), size), *_ = ledger.by_line()
    assert (file, size) == (__file__, x.untyped_storage().nbytes())


def test_everything_is_as_it_was_afterwards() -> None:
    available = torch.cuda.is_available
    with stand_in(Ledger(), MEMORY):
        assert torch.cuda.is_available()
    assert torch.cuda.is_available is available


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(RefusedError, match="no CUDA device"):
        CudaBackend()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="takes a CUDA device")
def test_the_real_device_counts_what_was_asked_for() -> None:
    backend = CudaBackend()
    before = backend.read()[0]
    x = torch.zeros(10, device="cuda")
    assert backend.read()[0] - before == x.untyped_storage().nbytes()
