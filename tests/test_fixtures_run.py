"""Runs every fixture's programs: they work, the fixes keep or mend the results as claimed, and memory moves as `fixture.toml` says."""

from __future__ import annotations

import importlib.util
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the fixtures are training programs: running them takes PyTorch")
tomllib = pytest.importorskip("tomllib", reason="fixture.toml is read with tomllib, which Python has since 3.11")
dispatch = pytest.importorskip("torch.utils._python_dispatch")
pytree = pytest.importorskip("torch.utils._pytree")

FOLDERS = sorted(path.parent for path in Path(__file__).parent.parent.glob("fixtures/*/fixture.toml"))
STEPS = 8
SAME_RESULTS = {"grows", "peak", "host", "time"}
OTHER_RESULTS = {"gradients", "results"}


class LiveBytes(dispatch.TorchDispatchMode):  # type: ignore[misc, name-defined]
    """Counts the bytes of the storages that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.storages: dict[int, weakref.ref[object]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.storages:
                    self._remember(storage._cdata, storage.nbytes(), storage)
        return result

    def _remember(self, key: int, size: int, storage: object) -> None:
        self.storages[key] = weakref.ref(storage, lambda _: self._forget(key, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _forget(self, key: int, size: int) -> None:
        del self.storages[key]
        self.live -= size


@cache
def program(folder: Path, name: str) -> ModuleType:
    if "numpy" in (folder / f"{name}.py").read_text("utf-8"):
        pytest.importorskip("numpy", reason="some programs move data to it, and PyTorch does not bring it along")
    spec = importlib.util.spec_from_file_location(f"fixture_{folder.name.replace('-', '_')}_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def results(folder: Path, name: str) -> dict[str, list[float]]:
    with one_thread():
        found: dict[str, list[float]] = program(folder, name).main(STEPS, "cpu")
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def peak(case: Callable[[int, str], object], steps: int) -> int:
    with one_thread(), LiveBytes() as counter:
        case(steps, "cpu")
    highest: int = counter.peak
    return highest


def growth(case: Callable[[int, str], object]) -> float:
    """Bytes per step by which the peak rises; zero where it has settled."""
    return (peak(case, 24) - peak(case, 16)) / 8


def spec_of(folder: Path) -> dict[str, Any]:
    spec: dict[str, Any] = tomllib.loads((folder / "fixture.toml").read_text(encoding="utf-8"))
    return spec


CASES = [pytest.param(folder, case, id=f"{folder.name[:5]}-{case['function']}") for folder in FOLDERS for case in spec_of(folder)["cases"]]
by_folder = pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
by_case = pytest.mark.parametrize(("folder", "case"), CASES)


@by_folder
@pytest.mark.parametrize("name", ["bad", "good", "fixed"])
def test_program_runs(folder: Path, name: str) -> None:
    with one_thread():
        found = program(folder, name).main(4, "cpu")
    assert found
    for case, numbers in found.items():
        assert numbers, case
        assert all(isinstance(number, float) and abs(number) < 1e6 for number in numbers), case


@by_folder
def test_every_case_is_described(folder: Path) -> None:
    spec = spec_of(folder)
    assert f"{spec['code']}-{spec['name']}" == folder.name
    described = [case["function"] for case in spec["cases"]]
    assert described == list(results(folder, "bad")) == list(results(folder, "fixed"))
    assert spec["effect"] in {case["effect"] for case in spec["cases"]}


@by_case
def test_results_are_kept_or_mended(folder: Path, case: dict[str, Any]) -> None:
    bad, fixed = results(folder, "bad")[case["function"]], results(folder, "fixed")[case["function"]]
    if case["effect"] in SAME_RESULTS:
        assert bad == fixed
    else:
        assert case["effect"] in OTHER_RESULTS
        assert bad != fixed


@by_case
def test_memory_moves_as_described(folder: Path, case: dict[str, Any]) -> None:
    if case.get("device_only"):
        pytest.skip("only a device shows it")
    bad, fixed = (getattr(program(folder, name), case["function"]) for name in ("bad", "fixed"))
    in_bad, in_fixed = growth(bad), growth(fixed)
    if case["effect"] == "grows":
        assert case["bytes_per_beat"] / 2 <= in_bad <= case["bytes_per_beat"] * 2
        assert in_fixed <= max(case["fixed_bytes_per_beat"] * 2, in_bad / 10)
    else:
        assert in_bad == in_fixed
        assert case.get("bytes_per_beat", 0) / 2 <= in_bad <= case.get("bytes_per_beat", 0) * 2
    if "peak_bytes_more" in case:
        assert case["peak_bytes_more"] / 2 <= peak(bad, 16) - peak(fixed, 16) <= case["peak_bytes_more"] * 2


def test_a_step_after_the_clear_changes_nothing() -> None:
    (folder,) = (folder for folder in FOLDERS if folder.name.startswith("TM102"))
    for norms in results(folder, "bad").values():
        assert len(set(norms)) == 1
    for norms in results(folder, "fixed").values():
        assert len(set(norms)) == len(norms)


def test_a_step_before_the_backward_changes_nothing_or_lags() -> None:
    (folder,) = (folder for folder in FOLDERS if folder.name.startswith("TM103"))
    bad = results(folder, "bad")
    assert len(set(bad["plain_loop"])) == len(set(bad["trainer_method"])) == 1
    assert bad["linear_model"][0] == bad["linear_model"][1]
    assert len(set(bad["linear_model"])) == STEPS
