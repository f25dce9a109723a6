"""Fixes applied round by round until nothing is left to mend, each round checked: no fix may bring a finding, of any rule."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from flake8_torchmem.fixes.blame import apart
from flake8_torchmem.fixes.document import Document, carried, overlap
from flake8_torchmem.fixes.names import idle, without_imports
from flake8_torchmem.fixes.plan import BY_HAND, Planned, plan, safety_of
from flake8_torchmem.fixes.syntax import Refused, Syntax
from flake8_torchmem.model import Finding, Safety
from flake8_torchmem.remedies import Decorate, Guard, NoRemedy, Remedy

MAX_ROUNDS = 10
WORD = re.compile(r"\w+")
MAX_CONSEQUENCES = 3
MAX_TRIED = 500_000  # characters that are checked in all attempts together: some seconds, for hundreds of fixes that do not go together
MIN_ATTEMPTS = 4
TOO_MANY = "too many fixes were tried in this file"
SAFE_ONLY = frozenset({Safety.SAFE})
UNSAFE_TOO = frozenset({Safety.SAFE, Safety.UNSAFE})

Diagnose = Callable[[str], list[Finding]]
Identity = tuple[str, int, int]


@dataclass(frozen=True)
class Left:
    """A finding that was not mended, and why, in one clause."""

    finding: Finding
    reason: str


@dataclass
class Outcome:
    """What became of one file.

    Attributes:
        document: after the fixes.
        fixed: findings as they were when they were mended, with the class of their fixes.
        left: findings of the selected rules that are still there, by place.
    """

    document: Document
    fixed: list[tuple[Finding, Safety]] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)


class Rounds:
    """Mends one file.

    Args:
        diagnose: the findings in a text, of every rule, suppressed ones left out.
        codes: of the findings that are to be mended.
        allowed: classes of fixes that may be made.
        wanted: asked about each fix before it is made.
    """

    def __init__(
        self, diagnose: Diagnose, codes: frozenset[str], allowed: frozenset[Safety], wanted: Callable[[Planned, Document], bool]
    ) -> None:
        self.diagnose = diagnose
        self.codes = codes
        self.allowed = allowed
        self.wanted = wanted
        self.refused: dict[Identity, str] = {}
        self.doubted: dict[Identity, tuple[tuple[str, ...], str]] = {}
        self.tried = self.attempts = 0
        self.agreed: set[Identity] = set()

    def run(self, document: Document) -> Outcome:
        """Apply fixes to a fixed point."""
        outcome = Outcome(document)
        findings = self.diagnose(document.normal)
        for _ in range(MAX_ROUNDS):
            planned = self._planned(outcome.document, findings)
            if not planned:
                break
            made = self._made(outcome.document, findings, planned)
            if made is None:
                continue  # what failed is remembered: the next round plans without it
            outcome.fixed += [(outcome.document.located(each.finding), each.fix.safety) for each in made[2]]
            self._follow(outcome.document, made[0])
            outcome.document, findings, _ = made
        if outcome.fixed:
            made_so, findings = self._tidied(document, outcome.document, findings)
            self._follow(outcome.document, made_so)
            outcome.document = made_so
        outcome.left = list(self._left(outcome.document, findings))
        return outcome

    def alone(self, document: Document, findings: list[Finding], finding: Finding, syntax: Syntax) -> Document:
        """The document after the fix of one finding, and of what that one brings.

        Args:
            document: the file.
            findings: all that is found in it.
            finding: the one to mend.
            syntax: of the document.

        Raises:
            Refused: it cannot be mended so, and why.
        """
        planned = plan(finding, syntax)
        document.admit(planned.fix.edits)
        after, now, _ = self._checked(document, findings, [planned])
        return self._tidied(document, after, now)[0]

    def _tidied(self, before: Document, after: Document, findings: list[Finding]) -> tuple[Document, list[Finding]]:
        """The document without imports that were of use before and are no longer."""
        if not Counter(WORD.findall(before.normal)) - Counter(WORD.findall(after.normal)):
            return after, findings  # every name is still there as often as it was: syntax need not be asked
        try:
            syntax = Syntax(after.normal)
            useless = idle(syntax) - idle(Syntax(before.normal))
        except Refused:
            return after, findings
        edits = list(without_imports(syntax, useless)) if useless else []
        if not edits:
            return after, findings
        try:
            tidy = after.edited(edits)
        except Refused:
            return after, findings
        return tidy, self.diagnose(tidy.normal)

    def _planned(self, document: Document, findings: Sequence[Finding]) -> list[Planned]:
        """Fixes that do not touch one another, in order of place."""
        chosen = [finding for finding in findings if finding.code in self.codes and safety_of(finding) in self.allowed]
        if not chosen:
            return []
        try:
            syntax = Syntax(document.normal)
        except Refused as refusal:
            self.refused |= {_identity(finding): str(refusal) for finding in chosen}
            return []
        found: list[Planned] = []
        for finding in chosen:
            identity = _identity(finding)
            if identity in self.refused:
                continue
            try:
                each = plan(finding, syntax)
                document.admit(each.fix.edits)
            except Refused as refusal:
                self.refused[identity] = str(refusal)
                continue
            texts, reason = self.doubted.get(identity, ((), ""))
            if reason and texts == _texts(each):
                self.refused[identity] = reason  # that is what was tried together with what has been made
                continue
            if any(overlap(edit.span, other.span) for edit in each.fix.edits for earlier in found for other in earlier.fix.edits):
                continue  # in a later round
            if identity in self.agreed or self.wanted(each, document):
                self.agreed.add(identity)
                found.append(each)
            else:
                self.refused[identity] = "you did not want it"
        return found

    def _made(
        self, document: Document, findings: Sequence[Finding], planned: Sequence[Planned]
    ) -> tuple[Document, list[Finding], list[Planned]] | None:
        """Guards first, as what they guard may need nothing more; else as many as do well together."""
        guards = [each for each in planned if _guards(each)]
        made = self._together(document, findings, guards) if 0 < len(guards) < len(planned) else None
        return made or self._together(document, findings, planned)

    def _together(
        self, document: Document, findings: Sequence[Finding], planned: Sequence[Planned]
    ) -> tuple[Document, list[Finding], list[Planned]] | None:
        """All at once, else one part after the other, each with those that have done well before: a few bad ones cost few attempts."""
        made, good = None, list[Planned]()
        failed: dict[frozenset[int], Refused] = {}
        alone: list[tuple[Planned, str, int]] = []
        pending = [list(planned)]
        while pending:
            group = pending.pop()
            attempt = [*good, *group]
            known = frozenset(map(id, attempt))
            if known not in failed:
                if self.attempts >= MIN_ATTEMPTS and self.tried > MAX_TRIED:
                    self.refused |= {_identity(each.finding): TOO_MANY for left in (group, *pending) for each in left}
                    break
                self.attempts += 1
                try:
                    made, good = self._checked(document, findings, attempt), attempt
                    continue
                except Refused as refusal:
                    failed[known] = refusal
            if len(group) > 1:
                pending += reversed(apart(document, group, attempt, findings, failed[known].come))
            else:
                alone.append((group[0], str(failed[known]), len(good)))
        for each, reason, beside in alone:
            if not good:
                self.refused[_identity(each.finding)] = reason
            elif beside == len(good):  # what has been made since might help
                self.doubted[_identity(each.finding)] = (_texts(each), reason)
        return made

    def _checked(
        self, document: Document, findings: Sequence[Finding], planned: Sequence[Planned], depth: int = 0
    ) -> tuple[Document, list[Finding], list[Planned]]:
        """The document after some fixes, if it is right: it parses, what was mended is gone, and nothing has come.

        What has come may be mended in the same way, as a loss that is to be divided once a window is one.

        Raises:
            Refused: it is not right, and why.
        """
        after = document.edited([edit for each in planned for edit in each.fix.edits])
        self.tried += len(after.text)
        try:
            ast.parse(after.normal)
        except (SyntaxError, ValueError, RecursionError) as error:
            raise Refused("the result would not be valid Python") from error
        now = self.diagnose(after.normal)
        expected = Counter(finding.code for finding in findings)
        expected.subtract(each.finding.code for each in planned)
        surplus = Counter(finding.code for finding in now)
        surplus.subtract(expected)
        come = [finding for finding in now if surplus[finding.code] > 0]
        if not come:
            return after, now, list(planned)
        if depth < MAX_CONSEQUENCES:
            before = {(finding.code, finding.message) for finding in findings}
            fresh = [finding for finding in come if (finding.code, finding.message) not in before]
            further = self._consequences(after, fresh)
            if further:
                try:
                    again = self._checked(after, [*_without(now, fresh), *fresh[: len(further)]], further, depth + 1)
                except Refused as refusal:
                    raise Refused(str(refusal), come) from refusal
                return again[0], again[1], [*planned, *again[2]]
        raise Refused(_complaint(come[0], [each.finding.code for each in planned]), come)

    def _consequences(self, document: Document, findings: Sequence[Finding]) -> list[Planned]:
        """Fixes of all that a fix has brought; none if one of them cannot be had."""
        if not all(isinstance(each.remedy, Remedy) and each.code in self.codes and safety_of(each) in self.allowed for each in findings):
            return []
        try:
            syntax = Syntax(document.normal)
            found = [plan(finding, syntax) for finding in findings]
            for each in found:
                document.admit(each.fix.edits)
        except Refused:
            return []
        return found

    def _left(self, document: Document, findings: Sequence[Finding]) -> Iterator[Left]:
        for finding in findings:
            if finding.code in self.codes:
                yield Left(document.located(finding), self.refused.get(_identity(finding)) or _why(finding, self.allowed))

    def _follow(self, before: Document, after: Document) -> None:
        """What was decided about findings holds where edits have moved them; on a line that has become another one, it is decided anew."""
        lines = carried(before, after)
        self.refused = {(code, lines[line], column): why for (code, line, column), why in self.refused.items() if line in lines}
        self.doubted = {(code, lines[line], column): said for (code, line, column), said in self.doubted.items() if line in lines}
        self.agreed = {(code, lines[line], column) for code, line, column in self.agreed if line in lines}


def _identity(finding: Finding) -> Identity:
    """What a finding is known by in one text: two on lines that read alike are not the same."""
    return finding.code, finding.span.line, finding.span.column


def _texts(planned: Planned) -> tuple[str, ...]:
    return tuple(edit.text for edit in planned.fix.edits)


def _guards(planned: Planned) -> bool:
    """Whether a fix turns gradients off for what stands there already."""
    actions = planned.finding.remedy.actions if isinstance(planned.finding.remedy, Remedy) else ()
    return any(isinstance(action, (Guard, Decorate)) for action in actions)


def _without(findings: Sequence[Finding], others: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if all(finding is not other for other in others)]


def _complaint(come: Finding, codes: Sequence[str]) -> str:
    if come.code in codes:
        return "the edit would not make it right"
    return f"the edit would bring {come.code} on line {come.span.line}"


def _why(finding: Finding, allowed: frozenset[Safety]) -> str:
    """Why a finding was not even tried."""
    if isinstance(finding.remedy, NoRemedy):
        return finding.remedy.reason
    if isinstance(finding.remedy, Remedy):
        safety = safety_of(finding)
        if safety is Safety.DISPLAY:
            return BY_HAND
        if safety not in allowed:
            return "its fix is unsafe: --unsafe-fixes makes it"
        return "no round was left for it"
    return BY_HAND
