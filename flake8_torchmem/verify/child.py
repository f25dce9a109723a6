"""The process that runs the code: reads a job from a file, writes a line of JSON to another for each thing it has run.

What the program prints goes to this process's own streams, which the parent keeps apart.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import linecache
import os
import random
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import torch

from flake8_torchmem.verify.backends import choose
from flake8_torchmem.verify.ledger import OWN
from flake8_torchmem.verify.probe import Backend, EnoughError, Probe
from flake8_torchmem.verify.refusal import RefusedError
from flake8_torchmem.verify.series import Failure, Run

Say = Callable[[dict[str, Any]], None]

SEED = 0
LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
GRACE = 10.0  # seconds for what the program left to be done at exit


def main(orders: str) -> None:
    """Run the job that a file describes."""
    job = json.loads(Path(orders).read_text("utf-8"))
    _bound(job["memory"])
    with open(job["output"], "w", encoding="utf-8") as output:
        _run(job, _Teller(output))
    # All is told. What a script left to be done at exit is done, and may take a while, but not for ever.
    if job["kind"] != "script":
        os._exit(0)
    last = threading.Timer(GRACE, os._exit, (0,))
    last.daemon = True
    last.start()


class _Teller:
    """Writes a line for each thing that was run. A copy of this process that the program makes has nothing to tell."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._teller = os.getpid()

    def __call__(self, line: dict[str, Any]) -> None:
        if os.getpid() == self._teller:
            self._output.write(json.dumps(line) + "\n")
            self._output.flush()


def _run(job: dict[str, Any], say: Say) -> None:
    try:
        backend, why = choose(job["device"])
    except RefusedError as error:
        say({"refused": str(error)})
        return
    say({"device": backend.name, "name": backend.title, "why": why, "torch": torch.__version__, "exact": backend.exact})
    if job["kind"] != "device":  # which is answered by now
        KINDS_OF_JOBS[job["kind"]](job, backend, say)


def _bound(memory: int | None) -> None:
    """No more than this much memory of the host's; what a driver maps of a device counts for nothing."""
    if memory is not None:
        try:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        except (ImportError, ValueError, OSError):  # not on this system
            return


def _fixture(job: dict[str, Any], backend: Backend, say: Say) -> None:
    """Each case of a fixture's program, more than once where it is to be repeated."""
    try:
        module = load(Path(job["file"]))
    except BaseException as error:  # noqa: BLE001 - whatever an import does is told, not passed on
        say({"import": described(error)})
        return
    own = getattr(module, "batches", None)
    for case in job["cases"]:
        for repeat in range(job["repeats"]):
            probe = Probe(backend, nodes=case["effect"] == "host")
            backend.snapshot = _snapshot(f"{job['snapshot']}-{case['function']}") if job["snapshot"] and repeat == 0 else None
            if own is not None:
                vars(module)["batches"] = _watched(own, probe)
            run = run_once(partial(_called, module, case["function"], job["steps"]), probe, backend)
            say({"case": case["function"], "repeat": repeat, "run": run.as_json()})


def _snapshot(name: str) -> Path:
    return Path(f"{name}.pickle")


def _called(module: ModuleType, function: str, steps: int) -> object:
    return getattr(module, function)(steps, "cuda")


def _watched(own: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    return lambda *args, **kwargs: probe.turns(own(*args, **kwargs))


def run_once(program: Callable[[], object], probe: Probe, backend: Backend) -> Run:
    """Run a program under a probe: seeded, with one thread, from a clean heap."""
    gc.collect()
    torch.manual_seed(SEED)
    random.seed(SEED)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(SEED)
    torch.set_num_threads(1)
    try:
        with backend.running(probe):
            gc.freeze()  # what is there by now is not looked through at every beat
            results = program()
        if isinstance(results, list):
            probe.run.results = [float(number) for number in results]
    except EnoughError:
        pass
    except SystemExit as error:
        if error.code not in (None, 0):
            probe.run.failure = failure_of(error, probe.run)
    except BaseException as error:  # noqa: BLE001
        probe.run.failure = failure_of(error, probe.run)
    gc.collect()
    return probe.run


def _script(job: dict[str, Any], backend: Backend, say: Say) -> None:
    """A script, or a module run by `-m`, until it has had its beats."""
    path = Path(job["path"])
    main = ModuleType("__main__")
    main.__file__ = str(path)
    if job["module"]:
        main.__package__ = job["module"].rpartition(".")[0]
        sys.path.insert(0, str(Path.cwd()))
    else:
        sys.path.insert(0, str(path.parent))
    sys.modules["__main__"] = main
    sys.argv = [str(path), *job["arguments"]]
    # Without a time, so that nobody looks into the file: PyTorch reads the source of what it scripts.
    linecache.cache[str(path)] = (len(job["source"]), None, job["source"].splitlines(keepends=True), str(path))
    code = compile(job["source"], str(path), "exec", dont_inherit=True)
    backend.snapshot = _snapshot(job["snapshot"]) if job["snapshot"] else None
    # A script says its own device; where it asks whether there is one, there is.
    run = run_once(lambda: exec(code, main.__dict__), Probe(backend, nodes=True, limit=job["beats"]), backend)  # noqa: S102
    say({"run": run.as_json()})


def failure_of(error: BaseException, run: Run) -> Failure:
    """How a run ended."""
    kind = "out of memory" if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) else type(error).__name__
    kind = "refused" if isinstance(error, RefusedError) else kind
    place = _place(error)
    return Failure(kind, f"{place}: {described(error)}" if place else described(error), max(map(len, run.samples.values())))


def _place(error: BaseException) -> str:
    """The innermost line of the program's that an exception went through, libraries left out: file and number, or nothing."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith((*OWN, *LIBRARIES, "<"))]
    if not frames:
        return ""
    file, here = Path(frames[-1].filename), Path.cwd()
    return f"{file.relative_to(here) if file.is_relative_to(here) else file.name}:{frames[-1].lineno}"


def described(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def load(path: Path) -> ModuleType:
    """A module from a file, under its own name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


KINDS_OF_JOBS: dict[str, Callable[[dict[str, Any], Backend, Say], None]] = {"fixture": _fixture, "script": _script}
