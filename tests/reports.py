"""Reports made in this process, and read by what reads them elsewhere: the published schemas."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import xmlschema
from click.testing import CliRunner

from flake8_torchmem.cli import torchmem
from tests.running import REPOSITORY

SCHEMAS = REPOSITORY / "tests" / "data" / "schemas"
FILES = {"sarif": "sarif-2.1.0.json", "gitlab": "gitlab-code-quality.json", "junit": "junit-10.xsd"}


def report(monkeypatch: pytest.MonkeyPatch, folder: Path, output_format: str, *arguments: str, stdin: bytes = b"") -> str:
    """What `torchmem check` prints when it is run in a folder."""
    monkeypatch.chdir(folder)
    command = ["check", "--no-cache", "--output-format", output_format, *(arguments or (".",))]
    result = CliRunner().invoke(torchmem, command, input=stdin, standalone_mode=False, catch_exceptions=False)
    assert result.exception is None, result.exception
    return result.stdout


@cache
def schema(output_format: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((SCHEMAS / FILES[output_format]).read_text("utf-8")))


@cache
def junit_schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(str(SCHEMAS / FILES["junit"]))


def valid(output_format: str, text: str) -> Any:  # noqa: ANN401
    """The document in the text, after its schema has had a look at it."""
    if output_format == "junit":
        junit_schema().validate(text)
        return text
    document = json.loads(text)
    if output_format in FILES:
        schema(output_format).validate(document)
    return document
