"""What every rule file declares, and what it may report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from flake8_torchmem.model import Safety, Severity

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.analysis.gradients.observations import Observations
    from flake8_torchmem.analysis.ir import Event, Site
    from flake8_torchmem.remedies import NoRemedy, Remedy


class Rule(NamedTuple):
    """The catalogue row of one rule.

    Attributes:
        code: `TM101`; the file is named after it.
        name: names the defect ("allow <name>" reads well); never changes once shipped.
        summary: one line for tables.
        severity: of its findings, unless a report says otherwise.
        default: reported without being selected.
        since: the first version that has it.
        safety: class of its fix.
        safety_reason: why, one sentence.
        effect: what running the code shows, measured (bytes per iteration, peak, or gradients).
    """

    code: str
    name: str
    summary: str
    severity: Severity
    default: bool
    since: str
    safety: Safety
    safety_reason: str
    effect: str


class Report(NamedTuple):
    """A defect before it has a position: the syntax it is about, a message and what to write instead.

    `{0}`, `{1}` in the message become the line numbers of `mentions`.

    Attributes:
        remedy: the edit that mends it, or why there is none; None where the rule leaves that to people.
        tentative: it counts only if it is none any more when callers in other files are in sight.
    """

    site: Site
    message: str
    help: str
    severity: Severity | None = None
    mentions: tuple[Site, ...] = ()
    remedy: Remedy | NoRemedy | None = None
    tentative: bool = False


def report_at(
    seen: Observations,
    event: Event,
    message: str,
    help: str,  # noqa: A002
    mentions: tuple[Site, ...] = (),
    remedy: Remedy | NoRemedy | None = None,
) -> Report:
    """A report of an event; one in another file is reported at the call that leads there, and the message says which line it is."""
    if event in seen.entries:
        message = f"through this call, line {{{len(mentions)}}}: {message}"
        return Report(seen.entries[event].site, message, help, mentions=(*mentions, event.site), remedy=remedy)
    return Report(event.site, message, help, mentions=mentions, remedy=remedy)


class RuleModule(Protocol):
    """The shape of a rule file: its docstring is the rule's page, `RULE` its row, `check` its logic."""

    __doc__: str | None
    RULE: Rule

    @staticmethod
    def check(facts: FileFacts) -> Iterator[Report]:
        """Yield the defects of one file, in any order."""
