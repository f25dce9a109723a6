"""The shipped table is what running the fixtures shows here, too: the cheap cases again, to the byte."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="the verifier runs PyTorch programs")

from flake8_torchmem.measured import tables  # noqa: E402
from flake8_torchmem.verify.backends import VirtualBackend  # noqa: E402
from flake8_torchmem.verify.child import SEED, load  # noqa: E402
from flake8_torchmem.verify.probe import Probe  # noqa: E402
from flake8_torchmem.verify.series import Run  # noqa: E402
from flake8_torchmem.verify.verdict import WARM_UP  # noqa: E402
from tests.running import REPOSITORY  # noqa: E402

CASES = [
    ("TM109", "plain_loop"), ("TM201", "metric"), ("TM201", "drift"), ("TM205", "evaluation"), ("TM213", "list_of_weights"),
    ("TM214", "graphs_as_values"), ("TM215", "last_column"),
]  # fmt: skip
BEATS = 14  # the first of those in the table
TABLE = tables()["virtual"]


def seen(fixture: str, program: str, case: str) -> Run:
    backend = VirtualBackend()
    probe = Probe(backend)
    module = load(REPOSITORY / "fixtures" / fixture / f"{program}.py")
    torch.manual_seed(SEED)
    with backend.running(probe):
        getattr(module, case)(BEATS, "cuda")
    return probe.run


@pytest.mark.skipif(torch.__version__.partition("+")[0] != TABLE.torch.partition("+")[0], reason=f"the table is of PyTorch {TABLE.torch}")
@pytest.mark.parametrize(("code", "case"), CASES)
def test_the_table_is_what_running_shows(code: str, case: str) -> None:
    row = TABLE.row(code, case)
    assert row is not None
    runs = {program: seen(row.fixture, program, case) for program in ("bad", "fixed")}
    for recorded, run in ((row.bad, runs["bad"]), (row.fixed, runs["fixed"])):
        assert run.series(row.beat, "live")[:BEATS] == [*recorded[:BEATS]]
    if row.effect == "peak":
        assert [max(run.series(row.beat, "peak")[WARM_UP:]) for run in runs.values()] == [row.bad_peak, row.fixed_peak]
