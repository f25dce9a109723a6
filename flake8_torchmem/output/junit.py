"""A JUnit report, as Jenkins reads it: a suite for each file, in it a failed test for each finding; a clean run is one passed test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from xml.etree import ElementTree

from flake8_torchmem.output import Located, Report
from flake8_torchmem.output.names import from_here
from flake8_torchmem.output.text import excerpt, place, printable, summary
from flake8_torchmem.rules.internal import UNREADABLE_FILE

_NAME = "torchmem"
_WIDEST = 80  # characters of a source line in the name of a test


def render(report: Report, colour: bool = False) -> Iterator[str]:
    """The document, in ASCII: whatever it is printed or written through, it arrives as it is."""
    root = ElementTree.Element("testsuites", name=_NAME)
    for path, group in groupby(report.findings, key=lambda located: located.finding.path):
        found = list(group)
        _add_failures(_suite(root, path, len(found), failures=len(found)), found)
    for error in report.errors:
        test = _test(_suite(root, error.path, 1, errors=1), error.path, f"{UNREADABLE_FILE.code} {UNREADABLE_FILE.name}")
        ElementTree.SubElement(test, "error", type=UNREADABLE_FILE.code, message=printable(error.message))
    if not report.findings and not report.errors:
        _test(_suite(root, _NAME, 1), _NAME, summary(report))
    totals = {key: sum(int(suite.get(key, 0)) for suite in root) for key in ("tests", "failures", "errors")}
    root.attrib.update({key: str(number) for key, number in totals.items()})
    ElementTree.indent(root)
    yield '<?xml version="1.0" encoding="us-ascii"?>'
    yield ElementTree.tostring(root, encoding="us-ascii", xml_declaration=False).decode("ascii")


def _suite(root: ElementTree.Element, path: str, tests: int, failures: int = 0, errors: int = 0) -> ElementTree.Element:
    name = printable(from_here(path))
    return ElementTree.SubElement(root, "testsuite", name=name, tests=str(tests), failures=str(failures), errors=str(errors))


def _test(suite: ElementTree.Element, path: str, name: str) -> ElementTree.Element:
    classname = printable(from_here(path)).removesuffix(".py").replace("/", ".")
    return ElementTree.SubElement(suite, "testcase", classname=classname, name=name, time="0")


def _add_failures(suite: ElementTree.Element, found: list[Located]) -> None:
    """Tests are named by the text of the line, not by its number: servers follow a test from run to run by its name."""
    for located in found:
        finding = located.finding
        again = f" ({located.twin + 1})" if located.twin else ""
        line = printable(" ".join(located.line.split()))
        shown = line if len(line) <= _WIDEST else f"{line[:_WIDEST]}..."
        test = _test(suite, finding.path, f"{finding.code} {finding.name}: {shown}{again}")
        message = printable(finding.message)
        failure = ElementTree.SubElement(test, "failure", type=finding.code, message=message)
        source, underline = excerpt(located.line, finding)
        heading = f"{place(finding, colour=False)} {finding.code} [{finding.name}] {message}"
        failure.text = "\n".join(["", heading, source, underline.rstrip(), f"help: {printable(finding.help)}", ""])
