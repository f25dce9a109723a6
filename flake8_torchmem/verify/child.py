"""The process that runs the code: reads a job from standard input, writes a line of JSON to a file for each thing it has run.

What the program prints goes to this process's own streams, which the parent keeps apart.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import torch

from flake8_torchmem.verify.backends import choose
from flake8_torchmem.verify.probe import Backend, EnoughError, Probe
from flake8_torchmem.verify.refusal import RefusedError
from flake8_torchmem.verify.series import Failure, Run

REPEATS = 2
SEED = 0


def main() -> None:
    """Run one job."""
    job = json.load(sys.stdin)
    _bound(job["memory"])
    with open(job["output"], "w", encoding="utf-8") as output:
        try:
            backend, why = choose(job["device"])
        except RefusedError as error:
            _say(output, {"refused": str(error)})
            return
        own = {"device": backend.name, "name": backend.title, "why": why}
        _say(output, {**own, "torch": torch.__version__, "exact": backend.exact})
        if job["kind"] != "device":  # which is answered by now
            KINDS_OF_JOBS[job["kind"]](job, backend, output)


def _bound(memory: int | None) -> None:
    """No more than this much memory of the host's; what a driver maps of a device counts for nothing."""
    if memory is not None:
        try:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        except (ImportError, ValueError, OSError):  # not on this system
            return


def _say(output: TextIO, line: dict[str, Any]) -> None:
    output.write(json.dumps(line) + "\n")
    output.flush()


def _fixture(job: dict[str, Any], backend: Backend, output: TextIO) -> None:
    """Each case of a fixture's program, more than once where it is to be repeated."""
    try:
        module = load(Path(job["file"]))
    except BaseException as error:  # noqa: BLE001 - whatever an import does is told, not passed on
        _say(output, {"import": described(error)})
        return
    own = getattr(module, "batches", None)
    for case in job["cases"]:
        for repeat in range(job["repeats"]):
            probe = Probe(backend, nodes=case["effect"] == "host")
            if own is not None:
                vars(module)["batches"] = _watched(own, probe)
            run = run_once(partial(getattr(module, case["function"]), job["steps"], "cuda"), probe, backend)
            _say(output, {"case": case["function"], "repeat": repeat, "run": run.as_json()})


def _watched(own: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    return lambda *args, **kwargs: probe.turns(own(*args, **kwargs))


def run_once(program: Callable[[], object], probe: Probe, backend: Backend) -> Run:
    """Run a program under a probe: seeded, with one thread, from a clean heap."""
    gc.collect()
    torch.manual_seed(SEED)
    random.seed(SEED)
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
    gc.unfreeze()
    gc.collect()
    return probe.run


def _script(job: dict[str, Any], backend: Backend, output: TextIO) -> None:
    """A script, or a module run by `-m`, until it has had its beats."""
    path = Path(job["path"])
    main = ModuleType("__main__")
    main.__file__ = str(path)
    if job["module"]:
        main.__package__ = job["module"].rpartition(".")[0]
        sys.path.insert(0, "")
    else:
        sys.path.insert(0, str(path.parent))
    sys.modules["__main__"] = main
    sys.argv = [str(path), *job["arguments"]]
    code = compile(job["source"], str(path), "exec", dont_inherit=True)
    # A script says its own device; where it asks whether there is one, there is.
    run = run_once(lambda: exec(code, main.__dict__), Probe(backend, nodes=True, limit=job["beats"]), backend)  # noqa: S102
    _say(output, {"run": run.as_json()})


def failure_of(error: BaseException, run: Run) -> Failure:
    """How a run ended."""
    kind = "out of memory" if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) else type(error).__name__
    kind = "refused" if isinstance(error, RefusedError) else kind
    return Failure(kind, described(error), max(len(samples) for samples in run.samples.values()))


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


KINDS_OF_JOBS: dict[str, Callable[[dict[str, Any], Backend, TextIO], None]] = {"fixture": _fixture, "script": _script}

if __name__ == "__main__":
    main()
