"""Patterns mean what they mean in pathspec, and take a time that grows with the path alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from flake8_torchmem.patterns import Patterns, compiled

PIECES = ["a", "b", "c", ".", "*", "**", "/", "?", "[ab]", "**/", "/**/", r"\*"]
NAMES = st.text("abc.*", min_size=1, max_size=4)
PATHS = st.builds(lambda names, end: "/".join(names) + end, st.lists(NAMES, min_size=1, max_size=5), st.sampled_from(["", "/"]))
PATTERNS = st.builds(
    lambda sign, parts: sign + "".join(parts), st.sampled_from(["", "!", "/"]), st.lists(st.sampled_from(PIECES), min_size=1, max_size=9)
)


@settings(max_examples=500, deadline=None)
@given(st.lists(PATTERNS, min_size=1, max_size=2), st.lists(PATHS, min_size=1, max_size=4))
def test_they_mean_what_they_mean_in_pathspec(patterns: list[str], paths: list[str]) -> None:
    try:
        expected = GitIgnoreSpec.from_lines(patterns)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            compiled(patterns)
        return
    found = compiled(patterns)
    for path in paths:
        one, other = expected.check_file(path), found.check_file(path)
        assert (one.include, one.index) == (other.include, other.index)
    for plain, steady in zip(expected.patterns, found.patterns, strict=True):
        assert (plain.regex is None) == (steady.regex is None)
        if plain.regex is not None and steady.regex is not None:
            assert [_seen(plain.regex.match(path)) for path in paths] == [_seen(steady.regex.match(path)) for path in paths]


def _seen(match: re.Match[str] | None) -> str | None:
    """Whether it matches, and whether by a folder around, which counts for less."""
    return None if match is None else str(match.groupdict().get("ps_d"))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 40 + "*b", "a" * 250 + ".py"),
        ("*[!x]" * 40 + "*b", "a" * 250 + ".py"),
        ("*?" * 60 + "b", "a" * 250 + ".py"),
        ("a**" * 40 + "b", "a" * 250 + ".py"),
        ("*" * 250 + "b", "a" * 250 + ".py"),
        ("**/a/" * 30 + "b", "a/" * 2_000 + "c.py"),
        ("/**/*a*a*a" * 20 + "/b", ("a" * 100 + "/") * 40 + "c.py"),
    ],
)
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    """Going back over what was read would take years here, for each of them."""
    assert not Patterns("", (pattern,)).match(path)


def test_a_class_of_characters_has_no_slash() -> None:
    assert not compiled(["a[!b]c"]).match_file("a/c")
    assert compiled(["a[!b]c"]).match_file("adc")
