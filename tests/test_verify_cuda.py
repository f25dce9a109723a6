"""The real device: its reader against what PyTorch documents, with a stand-in beneath it, and, where there is one, against the stand-in."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.running import REPOSITORY, SCRIPTS, run

torch: Any = pytest.importorskip("torch", reason="the verifier runs PyTorch programs")

from flake8_torchmem.verify.backends import CudaBackend, VirtualBackend  # noqa: E402
from flake8_torchmem.verify.child import run_once  # noqa: E402
from flake8_torchmem.verify.ledger import Ledger  # noqa: E402
from flake8_torchmem.verify.probe import EnoughError, Probe  # noqa: E402
from flake8_torchmem.verify.refusal import RefusedError  # noqa: E402
from flake8_torchmem.verify.series import STEP, Run  # noqa: E402
from flake8_torchmem.verify.standin import stand_in  # noqa: E402

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="takes a CUDA device")
ROUNDING = 512
LIBRARY = f"{torch.__path__[0]}/nn/modules/linear.py"


def block(size: int, *frames: tuple[str, int], state: str = "active_allocated", requested: int | None = None) -> dict[str, Any]:
    """A block of a snapshot, in the form that PyTorch 2.2 to 2.13 give it."""
    found: dict[str, Any] = {"size": size, "address": 1 << 40, "state": state}
    if requested is not None:
        found["requested_size"] = requested
    if frames:
        found["frames"] = [{"filename": file, "line": line, "name": "step"} for file, line in frames]
    return found


def segment(device: int, *blocks: dict[str, Any]) -> dict[str, Any]:
    sizes = {"total_size": 2 << 20, "allocated_size": 1024, "active_size": 1024, "requested_size": 1000}
    kind = {"segment_type": "small", "segment_pool_id": (0, 0), "is_expandable": False, "stream": 0}
    return {"device": device, "address": 1 << 40, **sizes, **kind, "blocks": list(blocks)}


class Allocator:
    """What is asked of the allocator beside its figures, in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.segments: list[dict[str, Any]] = []

    def record(self, enabled: str | None, **how: object) -> None:
        self.asked.append(("record", enabled, how.get("context")))

    def snapshot(self) -> dict[str, Any]:
        return {"segments": self.segments, "device_traces": [[]], "allocator_settings": {}}

    def dump(self, filename: str) -> None:
        self.asked.append(("dump", filename))


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Allocator]:
    """A CUDA device as far as Python can tell, whose memory is in the books of the stand-in."""
    made = Allocator()
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "native")
    for name, function in (("_record_memory_history", made.record), ("_snapshot", made.snapshot), ("_dump_snapshot", made.dump)):
        real = inspect.signature(getattr(torch.cuda.memory, name))
        monkeypatch.setattr(torch.cuda.memory, name, checked(real, function))
    with stand_in(Ledger(), 1 << 30):
        yield made


def checked(real: inspect.Signature, function: Callable[..., object]) -> Callable[..., object]:
    """Calls that PyTorch itself would not take fail here, too."""

    def call(*args: object, **kwargs: object) -> object:
        real.bind(*args, **kwargs)
        return function(*args, **kwargs)

    return call


def leak() -> list[float]:
    kept = []
    model = torch.nn.Linear(8, 4).to("cuda")
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(8):
        loss = model(torch.ones(16, 8, device="cuda")).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        kept.append(torch.zeros(25, device="cuda"))
    return [float(len(kept))]


def test_both_devices_tell_the_same(allocator: Allocator) -> None:
    real = run_once(leak, Probe(CudaBackend()), CudaBackend())
    virtual = VirtualBackend()
    exact = run_once(leak, Probe(virtual), virtual)
    assert real.failure is None
    assert real.series(STEP, "live") == exact.series(STEP, "live")
    assert real.series(STEP, "peak") == exact.series(STEP, "peak")
    assert real.series(STEP, "blocks") == exact.series(STEP, "blocks")
    owned = {name: exact.categories[name] for name in ("parameters", "gradients", "optimizer state")}
    assert {name: real.categories[name] for name in owned} == owned
    assert sum(real.categories.values()) == sum(exact.categories.values())


def test_lines_are_those_of_the_program(allocator: Allocator) -> None:
    allocator.segments = [
        segment(0, block(512, (LIBRARY, 3), ("/data/train.py", 7), requested=400), block(1024, ("/data/train.py", 7), requested=800)),
        segment(0, block(512, ("/data/model.py", 9)), block(512), block(512, ("/data/train.py", 7), state="inactive")),
        segment(0, block(512, ("/data/train.py", 7), state="active_pending_free"), block(512, ("??", 0))),
        segment(1, block(1 << 20, ("/data/train.py", 7), requested=1 << 20)),
    ]
    assert CudaBackend().lines() == [("/data/train.py", 7, 1200), ("/data/model.py", 9, 512)]


def test_what_grew_is_told_by_line(allocator: Allocator) -> None:
    def program() -> None:
        optimizer = torch.optim.SGD([torch.ones(2, device="cuda", requires_grad=True)], lr=0.1)
        for step in range(8):
            sizes = (("/data/model.py", 4_000), ("/data/train.py", 100 * step))
            allocator.segments = [segment(0, *(block(4096, (file, 3), requested=size) for file, size in sizes))]
            optimizer.step()

    found = run_once(program, Probe(CudaBackend()), CudaBackend())
    assert found.grown == [("/data/train.py", 3, 400)]
    assert found.lines[0] == ("/data/model.py", 3, 4_000)


def test_history_is_kept_for_what_is_alive_alone(allocator: Allocator) -> None:
    run_once(leak, Probe(CudaBackend()), CudaBackend())
    assert allocator.asked == [("record", "state", "state"), ("record", None, None)]


@pytest.mark.parametrize("ends", [None, EnoughError, ValueError])
def test_a_snapshot_is_taken_before_the_program_lets_go(allocator: Allocator, tmp_path: Path, ends: type[BaseException] | None) -> None:
    backend = CudaBackend()
    backend.snapshot = tmp_path / "now.pickle"

    def program() -> None:
        if ends is not None:
            raise ends

    run_once(program, Probe(backend), backend)
    assert allocator.asked == [("record", "all", "state"), ("dump", str(backend.snapshot)), ("record", None, None)]


def test_an_allocator_that_does_not_say_what_was_asked_for_is_refused(allocator: Allocator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "cudaMallocAsync")
    with pytest.raises(RefusedError, match="cudaMallocAsync"):
        CudaBackend()


def test_a_run_with_lines_travels_as_json() -> None:
    made = Run(lines=[("train.py", 3, 40)], grown=[("train.py", 4, 8)])
    assert Run.from_json(json.loads(json.dumps(made.as_json()))) == made


@cache
def rows(device: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Every shipped fixture on a device, by fixture and case."""
    command = [str(SCRIPTS / "torchmem"), "verify", str(REPOSITORY / "fixtures"), "--device", device, "--output-format", "json"]
    document = json.loads(run(command, REPOSITORY, timeout=1800).out)
    assert document["device"] == device
    return {(row["fixture"], row["case"]): row for row in document["results"]}


@GPU
def test_nothing_that_the_fixtures_claim_is_refuted_on_the_device() -> None:
    wrong = {name: row["reason"] for name, row in rows("cuda").items() if row["verdict"] == "REFUTED"}
    assert not wrong
    open_ones = {name: row["reason"] for name, row in rows("cuda").items() if row["verdict"] == "INCONCLUSIVE"}
    assert not {name: reason for name, reason in open_ones.items() if "exited" in reason or "killed" in reason or "cannot be" in reason}


@GPU
def test_live_bytes_on_the_device_are_those_of_the_stand_in() -> None:
    virtual = rows("virtual")
    for name, row in rows("cuda").items():
        for figure in ("bytes_per_beat", "bytes_per_beat_fixed"):
            if isinstance(row.get(figure), int | float) and isinstance(virtual[name].get(figure), int | float):
                assert abs(row[figure] - virtual[name][figure]) <= ROUNDING, (name, figure)


@GPU
def test_a_snapshot_of_the_device_is_one_for_the_viewer(tmp_path: Path) -> None:
    fixture = str(REPOSITORY / "fixtures" / "TM215-view-keeps-storage")
    done = run([str(SCRIPTS / "torchmem"), "verify", fixture, "--device", "cuda", "--snapshot", "history"], tmp_path)
    assert done.status == 0, done.err
    files = sorted(path.name for path in (tmp_path / "history").iterdir())
    assert files[0] == "TM215-view-keeps-storage-bad-first_column.pickle"
    saved = pickle.loads((tmp_path / "history" / files[0]).read_bytes())
    assert saved["segments"]
    assert any(saved["device_traces"])
