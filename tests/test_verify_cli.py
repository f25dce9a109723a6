"""`torchmem verify` as a user runs it: fixtures that are right, and wrong in all ways, and scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.running import REPOSITORY, SCRIPTS, Result, run, torchmem

pytest.importorskip("torch", reason="the verifier runs PyTorch programs")
tomllib = pytest.importorskip("tomllib", reason="fixture.toml is read with tomllib, which Python has since 3.11")

TOML = 'code = "TM201"\neffect = "grows"\nbeats = 16\n[[cases]]\nfunction = "case"\neffect = "grows"\n'
LOOP = """
import torch
def case(steps, device):
    kept, w = [], torch.ones(8, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    for _ in range(steps):
        w.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        KEEP
    return [float(w.sum())]
"""
BAD, FIXED = LOOP.replace("KEEP", "kept.append(torch.ones(25, device=device))"), LOOP.replace("KEEP", "pass")
TROUBLE = {
    "aborts": "import os\ndef case(steps, device): os.abort()",
    "exits": "import sys\ndef case(steps, device): sys.exit(3)",
    "hangs": "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef case(steps, device): time.sleep(600)",
    "imports-nothing": "import no_such_module",
    "eats": "def case(steps, device): return [len(bytearray(1 << 40))]",
    "no-case": "x = 1",
}
LEAVES = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)  # MARK"], start_new_session=True)
assert "FAKE_TOKEN" not in os.environ
print("x" * 10_000_000)
"""
SCRIPT = """
import argparse, torch
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)

def main():
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch.nn.Linear(8, 4).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.lr)
    outputs = []
    for step in range(100_000):
        optimizer.zero_grad()
        out = model(torch.randn(16, 8, device=device))
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
model = torch.nn.Linear(8, 4).cuda()
for step in range(100_000):
    out = model(torch.randn(16, 8, device="cuda"))
"""


def verify(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Result:
    return torchmem("verify", *arguments, cwd=cwd, env=env)


def fixture(folder: Path, bad: str, fixed: str = FIXED, toml: str | None = TOML) -> None:
    folder.mkdir(parents=True)
    for name, text in (("bad.py", bad), ("fixed.py", fixed), ("fixture.toml", toml)):
        if text is not None:
            (folder / name).write_text(text, "utf-8")


def rows(result: Result) -> dict[str, dict[str, Any]]:
    document = json.loads(result.out)
    assert set(document) >= {"results", "device", "torch"}
    for row in document["results"]:
        assert set(row) >= {"code", "fixture", "verdict", "effect", "reason"}
    return {row["fixture"]: row for row in document["results"]}


def test_fixtures_in_all_states(tmp_path: Path) -> None:
    mark = f"{tmp_path.name}-{time.time_ns()}"
    fixture(tmp_path / "leaks", LEAVES.replace("MARK", mark) + BAD)
    fixture(tmp_path / "flat", FIXED)
    fixture(tmp_path / "unlisted", BAD, toml=None)
    fixture(tmp_path / "unknown", BAD, toml=TOML.replace('"grows"', '"flies"'))
    fixture(tmp_path / "beyond", BAD, toml=TOML + 'beyond_virtual = "it is <slow>"\n')
    for name, text in TROUBLE.items():
        fixture(tmp_path / name, text)
    options = ("--device", "virtual", "--timeout", "25", "--memory-limit", "8GiB", "--html", str(tmp_path / "page.html"))
    result = verify(".", "--output-format", "json", "--jobs", "4", *options, cwd=tmp_path, env={"FAKE_TOKEN": "secret"})
    found = rows(result)
    assert found["leaks"]["verdict"] == "CONFIRMED", found["leaks"]
    assert found["leaks"]["bytes_per_beat"] == 100
    assert found["flat"]["verdict"] == "REFUTED"
    assert result.status == 1
    reasons = {
        "unlisted": "no fixture.toml", "unknown": "unknown effect 'flies'", "beyond": "it is <slow>", "aborts": "killed by signal 6",
        "exits": "SystemExit: 3", "hangs": "stopped after 25 seconds", "imports-nothing": "no_such_module", "eats": "out of memory",
        "no-case": "case",
    }  # fmt: skip
    for name, reason in reasons.items():
        assert found[name]["verdict"] == "INCONCLUSIVE"
        assert reason in found[name]["reason"], found[name]
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "it is &lt;slow&gt;" in page
    assert '<svg class="torchmem-plot"' in page
    assert not alive(mark)


def alive(mark: str) -> list[str]:
    """Processes whose command line holds a mark, where the system lists them."""
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in content(path)]


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def test_a_shipped_fixture_reads_as_text() -> None:
    result = verify(str(REPOSITORY / "fixtures" / "TM215-view-keeps-storage"), "--device", "virtual", cwd=REPOSITORY)
    assert result.status == 0, result.err
    assert "CONFIRMED    TM215-view-keeps-storage:first_column" in result.out
    assert "2,048 bytes per forward" in result.out
    assert "executes" in result.err


def test_a_script_with_arguments(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT, "utf-8")
    options = ("--device", "virtual", "--beats", "14", "--gpu-memory", "1MiB", "--output-format", "json")
    result = verify("train.py", *options, "--", "--lr", "0.1", cwd=tmp_path)
    document = json.loads(result.out)
    assert document["now"]["growth"] == 256
    assert document["now"]["steps_to_full"] > 3000
    (cost,) = document["findings"]
    assert cost["code"] == "TM202"
    assert "executes train.py" in result.err
    assert (tmp_path / "train.py").read_text("utf-8") == SCRIPT


def test_a_module_without_an_optimizer(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "evaluate.py").write_text(EVALUATION, "utf-8")
    result = verify("-m", "package.evaluate", "--device", "virtual", cwd=tmp_path)
    assert result.status == 0, result.err
    assert "20 forwards" in result.out


def test_a_script_that_fails(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import torch\nraise ValueError('no data')\n", "utf-8")
    result = verify("train.py", "--device", "virtual", cwd=tmp_path)
    assert result.status == 2
    assert "no data" in result.out


@pytest.mark.parametrize("arguments", [(), ("missing.py",), ("-m", "no.such"), (".", "--gpu-memory", "much")])
def test_usage_errors(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert verify(*arguments, cwd=tmp_path).status == 2


def test_linting_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT, "utf-8")
    code = "import sys; from flake8_torchmem import check_source; check_source(open('train.py').read(), 'train.py')"
    code += "; assert 'torch' not in sys.modules"
    assert run([str(SCRIPTS / "python"), "-c", code], tmp_path).status == 0
