"""`torchmem verify` as a user runs it: fixtures that are right, and wrong in all ways, and scripts.

Each program is a process that imports PyTorch, which takes seconds: the commands run side by side, and each test reads one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flake8_torchmem.measured import Table, tables
from flake8_torchmem.verify.processes import MARK
from flake8_torchmem.verify.runner import FIXED as FIXED_VARIABLES
from flake8_torchmem.verify.runner import KEPT
from tests.running import REPOSITORY, SCRIPTS, Result, run, torchmem

pytest.importorskip("torch", reason="the verifier runs PyTorch programs")

HEAD = 'code = "TM201"\neffect = "grows"\nbeats = 16\n'
CASE = '[[cases]]\nfunction = "{}"\neffect = "grows"\n'
TOML = HEAD + CASE.format("case")
LOOP = """
import torch
def case(steps, device):
    kept, w = [], torch.ones(8, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    for step in range(steps):
        w.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        KEEP
    return [float(w.sum())]
"""
BAD, FIXED = LOOP.replace("KEEP", "kept.append(torch.ones(25, device=device))"), LOOP.replace("KEEP", "pass")

# What looks like growth and is not, and what is growth and does not look like it.
LOOKS = """
import torch
def trained(steps, device, turn, make=torch.optim.SGD):
    kept, model = [], torch.nn.Linear(4, 1).to(device)
    optimizer = make(model.parameters(), lr=0.1)
    for step in range(steps):
        model(torch.ones(2, 4, device=device)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        turn(step, kept, optimizer, model, torch.ones(25, device=device))
    return [step]
def warm_up(steps, device):
    return trained(steps, device, lambda step, kept, *rest: step < 7 and kept.append(rest[-1]))
def cache(steps, device):
    known = {}
    return trained(steps, device, lambda step, kept, *rest: known.setdefault(step % 6, rest[-1]))
def lazy_state(steps, device):
    def turn(step, kept, optimizer, model, made):
        if step == 7:
            late = torch.ones(64, device=device, requires_grad=True)
            late.sum().backward()
            optimizer.add_param_group({"params": [late]})
    return trained(steps, device, turn, torch.optim.Adam)
def window(steps, device):
    def turn(step, kept, optimizer, model, made):
        kept.append(made)
        if step % 4 == 3:
            kept.clear()
    return trained(steps, device, turn)
def flat(steps, device):
    return trained(steps, device, lambda *rest: None)
def four_bytes(steps, device):
    return trained(steps, device, lambda step, kept, *rest: kept.append(torch.ones(1, device=device)))
def in_evaluation(steps, device):
    def turn(step, kept, optimizer, model, made):
        if step % 4 == 3:
            kept.append(model(torch.ones(2, 4, device=device)))
    return trained(steps, device, turn)
"""
INNOCENT, GUILTY = ("warm_up", "cache", "lazy_state", "window", "flat"), {"four_bytes": 4, "in_evaluation": 10}
LOOKS_FIXED = LOOKS + "\nfour_bytes = in_evaluation = flat\n"

# What a program may do that would disturb a runner. All of them leak 100 bytes a step.
UNRULY = """
import atexit, contextlib, os, pathlib, signal, subprocess, sys, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
assert "FAKE_TOKEN" not in os.environ
def prints(steps, device):
    for _ in range(100):
        print("x" * 1_000_000)
    return case(steps, device)
def writes(steps, device):
    assert not list(pathlib.Path().iterdir())
    pathlib.Path("note.txt").write_text("x")
    pathlib.Path("note.txt").unlink()
    pathlib.Path("MARK").write_text("x")
    found = case(steps, device)
    pathlib.Path("MARK").unlink()
    return found
def forks(steps, device):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)  # MARK"], start_new_session=True)
    os.fork()
    return case(steps, device)
def closes(steps, device):
    with contextlib.suppress(OSError):
        os.close(1)
    sys.stdout = None
    return case(steps, device)
atexit.register(time.sleep, 600)
threading.Thread(target=time.sleep, args=(600,)).start()
"""
DISTURBANCES = ("prints", "writes", "closes", "forks")
PLAIN = "".join(f"\ndef {name}(steps, device): return case(steps, device)" for name in DISTURBANCES)
# Within one process, an exception is the end of a case, not of the others.
ENDS = """
import sys
def exits(steps, device): sys.exit(3)
def eats(steps, device): return [len(bytearray(1 << 40))]
def fails(steps, device): raise ValueError("no \\x1b[31mdata")
"""
REASONS = {"exits": "SystemExit: 3", "eats": "out of memory", "fails": "bad.py:5: ValueError: no \x1b[31mdata", "absent": "'absent'"}
TROUBLE = {
    "aborts": "import os, sys\nprint('x' * 5_000, file=sys.stderr)\nprint('last words', file=sys.stderr, flush=True)\nos.abort()",
    "hangs": "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)  # MARK",
    "imports-nothing": "import no_such_module",
}
SCRIPT = """
import argparse, pathlib, torch
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)

def main():
    arguments = parser.parse_args()
    size = int(pathlib.Path("data/size.txt").read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch.nn.Linear(size, 4).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.lr)
    for _ in range(100):
        with torch.no_grad():
            model(torch.randn(16, size, device=device))
    outputs = []
    for step in range(100_000):
        optimizer.zero_grad()
        out = model(torch.randn(16, size, device=device))
        loss = out.pow(2).mean()
        loss.backward()
        optimizer.step()
        outputs.append(out)
    print(len(outputs))

if __name__ == "__main__":
    main()
"""
EVALUATION = """
import torch
from .sizes import SIZE
model = torch.nn.Linear(SIZE, 4).cuda()
for step in range(12):
    out = model(torch.randn(16, SIZE, device="cuda"))
raise SystemExit
"""
ENDING = """
import torch
model = torch.nn.Linear(8, 4).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(12):
    loss = model(torch.randn(16, 8, device="cuda")).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
raise ValueError("no data")
"""
# What docs/verifying.md says of a fixture: a function for each row, which fails if the row is wrong. All of them leak 100 bytes a step.
CLAIMS = """
import os, pathlib, socket, sys, torch
def session(steps, device):
    assert os.getsid(0) == os.getpid()
    return case(steps, device)
def memory(steps, device):
    try:
        bytearray(9 << 30)
    except MemoryError:
        return case(steps, device)
    raise AssertionError("9 GiB under a limit of 8")
def environment(steps, device):
    names = {entry.partition("=")[0] for entry in pathlib.Path("/proc/self/environ").read_text().split(chr(0)) if entry}
    assert names <= set(ALLOWED), names - set(ALLOWED)
    return case(steps, device)
def folder(steps, device):
    assert not list(pathlib.Path().iterdir())
    pathlib.Path("OUTSIDE").write_text(os.getcwd())  # files are not contained
    return case(steps, device)
def standard_input(steps, device):
    assert sys.stdin.read() == ""
    return case(steps, device)
def network(steps, device):
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    return case(steps, device)
def randomness(steps, device):
    assert (torch.initial_seed(), torch.get_num_threads()) == (0, 1)
    return case(steps, device)
"""
CLAIMED = ("session", "memory", "environment", "folder", "standard_input", "network", "randomness")
KEPT_CLAIMS = "".join(f"\ndef {name}(steps, device): return case(steps, device)" for name in CLAIMED)
# And of a script.
SCRIPT_CLAIMS = """
import os, pathlib, sys, torch
assert os.getsid(0) == os.getpid()
assert os.environ["FAKE_TOKEN"] == "secret"
assert pathlib.Path("mine.txt").read_text() == "mine"
assert sys.stdin.read() == ""
assert (torch.initial_seed(), torch.get_num_threads()) == (0, 1)
with open("runs.txt", "a") as file:
    file.write("once\\n")
try:
    bytearray(9 << 30)
except MemoryError:
    pass
else:
    raise AssertionError("9 GiB under a limit of 8")
print("x" * 1_000_000)
"""
WAITING = "import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(600)  # MARK\n"


def fixture(folder: Path, bad: str, fixed: str = FIXED, toml: str | None = TOML) -> None:
    folder.mkdir(parents=True)
    for name, text in (("bad.py", bad), ("fixed.py", fixed), ("fixture.toml", toml)):
        if text is not None:
            (folder / name).write_text(text, "utf-8")


def of_cases(*names: str) -> str:
    return HEAD + "".join(map(CASE.format, names))


def script(folder: Path, files: Mapping[str, str], *arguments: str, env: Mapping[str, str] | None = None) -> Result:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return torchmem("verify", "--device", "virtual", *arguments, cwd=folder, env=env)


def mark_of(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"


def of_fixtures(folder: Path, *arguments: str) -> Result:
    options = ("--device", "virtual", "--timeout", "30", "--memory-limit", "8GiB", "--output-format", "json", "--jobs", "1")
    return torchmem("verify", ".", *options, *arguments, cwd=folder, env={"FAKE_TOKEN": "secret"})


def measured(folder: Path) -> Result:
    fixture(folder / "looks", LOOKS, LOOKS_FIXED, of_cases(*INNOCENT, *GUILTY))
    fixture(folder / "unruly", UNRULY.replace("MARK", mark_of(folder)) + BAD, FIXED + PLAIN, of_cases(*DISTURBANCES))
    return of_fixtures(folder)


def claims(folder: Path) -> Result:
    allowed = str(sorted({*KEPT, *FIXED_VARIABLES, MARK, "LC_CTYPE"}))
    outside = str(folder / "outside.txt")
    fixture(
        folder / "claims", CLAIMS.replace("ALLOWED", allowed).replace("OUTSIDE", outside) + BAD, FIXED + KEPT_CLAIMS, of_cases(*CLAIMED)
    )
    return of_fixtures(folder)


def claims_of_scripts(folder: Path) -> Result:
    files = {"train.py": SCRIPT_CLAIMS + ENDING, "mine.txt": "mine"}
    return script(folder, files, "--memory-limit", "8GiB", "train.py", env={"FAKE_TOKEN": "secret"})


def in_trouble(folder: Path) -> Result:
    fixture(folder / "ends", ENDS, FIXED, of_cases(*REASONS))
    for name, text in TROUBLE.items():
        fixture(folder / name, text.replace("MARK", mark_of(folder)))
    fixture(folder / "unlisted", BAD, toml=None)
    fixture(folder / "unknown", BAD, toml=TOML.replace('"grows"', '"flies"'))
    fixture(folder / "beyond", BAD, toml=TOML + 'beyond_virtual = "it is <slow>"\n')
    return of_fixtures(folder, "--html", "page.html")


def interrupted(folder: Path, sent: signal.Signals, until: Callable[[subprocess.Popen[bytes]], object], *arguments: str) -> Result:
    command = [str(SCRIPTS / "torchmem"), "verify", "--device", "virtual", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    before = until(process)
    process.send_signal(sent)
    out, err = process.communicate(timeout=120)
    return Result(process.returncode, (before if isinstance(before, bytes) else b"").decode() + out.decode(), err.decode())


def interrupted_fixtures(folder: Path) -> Result:
    fixture(folder / "a-leaks", BAD)
    fixture(folder / "b-hangs", TROUBLE["hangs"].replace("MARK", mark_of(folder)))
    fixture(folder / "c-waits", BAD)

    def first_row(process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        return process.stdout.readline() + process.stdout.readline()

    return interrupted(folder, signal.SIGINT, first_row, ".", "--jobs", "1")


def interrupted_script(folder: Path) -> Result:
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(WAITING.replace("MARK", mark_of(folder)), "utf-8")

    def started(process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None and not (folder / "started").exists():
            time.sleep(0.1)

    return interrupted(folder, signal.SIGTERM, started, "train.py", "--output-format", "json")


def shipped(folder: Path) -> Result:
    folder.mkdir(parents=True)
    options = ("--device", "virtual", "--html", "page.html", "--record", "table.json")
    return torchmem("verify", str(REPOSITORY / "fixtures" / "TM215-view-keeps-storage"), *options, cwd=folder)


def with_arguments(folder: Path) -> Result:
    options = ("--beats", "14", "--gpu-memory", "1MiB", "--output-format", "json", "--", "--lr", "0.1")
    return script(folder, {"train.py": SCRIPT, "data/size.txt": "8"}, "train.py", *options)


def by_module(folder: Path) -> Result:
    files = {"package/__init__.py": "", "package/sizes.py": "SIZE = 8", "package/evaluate.py": EVALUATION}
    return script(folder, files, "-m", "package.evaluate")


def fails_later(folder: Path) -> Result:
    return script(folder, {"train.py": ENDING}, "train.py")


def fails_at_once(folder: Path) -> Result:
    return script(folder, {"train.py": "import torch\nraise ValueError('no data')\n"}, "train.py")


COMMANDS: tuple[Callable[[Path], Result], ...] = (
    measured, claims, claims_of_scripts,
    in_trouble, interrupted_fixtures, interrupted_script, shipped, with_arguments, by_module, fails_later, fails_at_once,
)  # fmt: skip
Started = Callable[[Callable[[Path], Result]], tuple[Path, Result]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """The result of each command, and the folder that it ran in. All of them are started at once, a few run at a time."""
    base = tmp_path_factory.mktemp("verify")
    with ThreadPoolExecutor(max_workers=min(4, (os.cpu_count() or 1) + 1)) as pool:
        running: dict[str, Future[Result]] = {command.__name__: pool.submit(command, base / command.__name__) for command in COMMANDS}
        yield lambda command: (base / command.__name__, running[command.__name__].result())


def rows(result: Result) -> dict[str, dict[str, Any]]:
    document = json.loads(result.out)
    assert set(document) >= {"results", "device", "torch"}
    for row in document["results"]:
        assert set(row) >= {"code", "fixture", "verdict", "effect", "reason"}
    return {row["fixture"] + (":" + row["case"] if row["case"] and row["case"] != "case" else ""): row for row in document["results"]}


def alive(mark: str) -> list[str]:
    """Processes whose command line holds a mark, where the system lists them."""
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in content(path)]


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def test_what_looks_like_growth_is_not_confirmed(done: Started) -> None:
    _, result = done(measured)
    found = rows(result)
    for name in INNOCENT:
        assert found[f"looks:{name}"]["verdict"] != "CONFIRMED", found[f"looks:{name}"]
    assert found["looks:flat"]["verdict"] == found["looks:window"]["verdict"] == "REFUTED"
    assert result.status == 1


def test_small_and_rare_growth_is_confirmed(done: Started) -> None:
    found = rows(done(measured)[1])
    for name, size in GUILTY.items():
        assert found[f"looks:{name}"]["verdict"] == "CONFIRMED", found[f"looks:{name}"]
        assert found[f"looks:{name}"]["bytes_per_beat"] == size


def test_programs_that_disturb_are_measured(done: Started) -> None:
    folder, result = done(measured)
    found = rows(result)
    for name in DISTURBANCES:
        assert found[f"unruly:{name}"]["verdict"] == "CONFIRMED", found[f"unruly:{name}"]
        assert found[f"unruly:{name}"]["bytes_per_beat"] == 100
    assert not alive(mark_of(folder))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at the environment through /proc")
def test_what_the_page_says_of_fixtures_is_so(done: Started) -> None:
    folder, result = done(claims)
    found = rows(result)
    for name in CLAIMED:
        assert found[f"claims:{name}"]["verdict"] == "CONFIRMED", found[f"claims:{name}"]
    where = Path((folder / "outside.txt").read_text("utf-8"))
    assert where.name == "empty"
    assert not where.exists()


def test_what_the_page_says_of_scripts_is_so(done: Started) -> None:
    folder, result = done(claims_of_scripts)
    assert result.status == 0, result.out + result.err
    assert "train.py: 12 steps, no growth" in result.out
    assert "xxx" not in result.out + result.err
    assert (folder / "runs.txt").read_text("utf-8") == "once\n"  # one run, as nothing is to be fixed


def test_programs_that_end_early_are_rows_like_the_others(done: Started) -> None:
    folder, result = done(in_trouble)
    found = rows(result)
    reasons = {f"ends:{name}": reason for name, reason in REASONS.items()}
    reasons |= {
        "unlisted": "no fixture.toml", "unknown": "unknown effect 'flies'", "beyond": "it is <slow>", "hangs": "stopped after 30 seconds",
        "aborts": "killed by signal 6 (last words; ", "imports-nothing": "no_such_module",
    }  # fmt: skip
    for name, reason in reasons.items():
        assert found[name]["verdict"] == "INCONCLUSIVE"
        assert reason in found[name]["reason"], found[name]
    assert "bytes of output before it were dropped" in found["aborts"]["reason"]
    page = (folder / "page.html").read_text("utf-8")
    assert "it is &lt;slow&gt;" in page
    assert not alive(mark_of(folder))


def test_an_interrupted_run_reports_what_it_has(done: Started) -> None:
    folder, result = done(interrupted_fixtures)
    assert result.status == 130, result.err
    lines = result.out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["CONFIRMED", "a-leaks:case"], ["INCONCLUSIVE", "b-hangs:case"], ["INCONCLUSIVE", "c-waits:case"]
    ]  # fmt: skip
    assert lines[2].endswith("interrupted")
    assert lines[3].endswith("interrupted")
    assert lines[-1] == "3 cases: 1 confirmed, 0 refuted, 2 inconclusive"
    assert not alive(mark_of(folder))


def test_an_interrupted_script_is_reported(done: Started) -> None:
    folder, result = done(interrupted_script)
    assert result.status == 130, result.err
    document = json.loads(result.out)
    assert document["failure"] == "interrupted"
    assert document["finished"] is False
    assert not alive(mark_of(folder))


def test_a_shipped_fixture_reads_as_text(done: Started) -> None:
    folder, result = done(shipped)
    assert result.status == 0, result.err
    assert "CONFIRMED    TM215-view-keeps-storage:first_column" in result.out
    assert "2,048 bytes per forward" in result.out
    assert "executes" in result.err
    page = (folder / "page.html").read_text("utf-8")
    assert '<svg class="torchmem-plot"' in page
    assert "table.json: written" in result.err
    recorded, table = Table.from_json(json.loads((folder / "table.json").read_text("utf-8"))), tables()["virtual"]
    assert [row.case for row in recorded.rules["TM215"]] == ["first_column", "last_column"]
    if recorded.torch == table.torch:
        assert recorded.rules["TM215"] == table.rules["TM215"]


def test_a_script_with_arguments_that_evaluates_before_it_trains(done: Started) -> None:
    folder, result = done(with_arguments)
    document = json.loads(result.out)
    assert document["now"]["kind"] == "step", document
    assert document["now"]["growth"] == 256
    assert document["now"]["steps_to_full"] > 3000
    assert document["all_fixed"]["growth"] == 0
    (cost,) = document["findings"]
    assert cost["code"] == "TM202"
    assert document["grown"][0]["line"] == SCRIPT[: SCRIPT.index("        out = model")].count("\n") + 1
    assert "executes train.py, 2 times" in result.err
    assert (folder / "train.py").read_text("utf-8") == SCRIPT


def test_a_module_without_an_optimizer_that_exits(done: Started) -> None:
    _, result = done(by_module)
    assert result.status == 0, result.err
    assert "12 forwards, no growth" in result.out
    assert "of itself" not in result.out


def test_a_script_that_fails_after_some_steps(done: Started) -> None:
    _, result = done(fails_later)
    assert result.status == 0, result.out + result.err
    assert "train.py: 12 steps, no growth" in result.out
    assert f"it ended there of itself: train.py:{ENDING.count(chr(10))}: ValueError: no data" in result.out


def test_a_script_that_fails(done: Started) -> None:
    _, result = done(fails_at_once)
    assert result.status == 2
    assert "train.py:2: ValueError: no data" in result.out


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("missing.py",), ("-m", "no.such"), (".", "--gpu-memory", "much"), (str(REPOSITORY / "fixtures"), "--snapshot", "s"),
        (str(REPOSITORY / "fixtures"), "--record", "no/such/table.json"), (str(REPOSITORY / "tests" / "conftest.py"), "--record", "t.json"),
    ],
)  # fmt: skip
def test_usage_errors(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = torchmem("verify", "--device", "virtual", *arguments, cwd=tmp_path)
    assert result.status == 2
    assert "Traceback" not in result.err


def test_linting_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT, "utf-8")
    code = "import sys; from flake8_torchmem import check_source; check_source(open('train.py').read(), 'train.py')"
    code += "; assert 'torch' not in sys.modules"
    assert run([str(SCRIPTS / "python"), "-c", code], tmp_path).status == 0
