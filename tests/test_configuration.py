"""What decides about a run: the table of `pyproject.toml`, the command line, and flake8's own files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flake8_torchmem.configuration import Configuration, ConfigurationError, Given, configure, table
from flake8_torchmem.configuration.keys import KEYS, MOST_SAID
from flake8_torchmem.configuration.shown import lines
from flake8_torchmem.model import Severity
from flake8_torchmem.ownnames import OwnNames
from tests.commands import command, reported
from tests.running import SCRIPTS, Result, run, torchmem
from tests.samples import BOTH, LEAKY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HEAD = "[tool.flake8_torchmem]\n"
WRAPPED = """\
from acme import go_back, take_step


def train(model, loader, optimizer, criterion):
    for x, y in loader:
        go_back(criterion(model(x), y))
        take_step(optimizer)
"""
FULL = """\
[project]
name = "theirs"

[tool.flake8_torchmem]
select = ["TM1", "TM201"]
extend-select = ["TM301"]
ignore = ["TM105"]
exclude = [".git", "build/"]
extend-exclude = ["*_pb2.py"]
force-exclude = true
project-root = "src"
no-imports = true
jobs = 3
output-format = "json"
baseline = "known.json"

[tool.flake8_torchmem.per-file-ignores]
"tests/*" = ["TM2"]

[tool.flake8_torchmem.severity]
TM1 = "warning"
TM101 = "error"

[tool.flake8_torchmem.api]
backward = ["acme.go_back"]
step = ["take_step"]
zero-grad = ["wipe"]
detach = ["cut"]
to-host = ["plain"]
no-grad = ["quiet"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("src", "tests"):
        (tmp_path / name).mkdir()
    return tmp_path


def config(folder: Path, text: str, name: str = "pyproject.toml") -> None:
    (folder / name).write_text(text, "utf-8")


def test_every_key_arrives(folder: Path) -> None:
    config(folder, FULL)
    found = configure(["src"])
    assert found.values.keys() == found.origins.keys() == KEYS.keys()
    assert set(found.origins.values()) == {"pyproject.toml", "default"}
    assert [name for name, origin in found.origins.items() if origin == "default"] == ["cache-dir"]
    assert found.settings.select == ("TM1", "TM201")
    assert (found.settings.extend_select, found.settings.ignore) == (("TM301",), ("TM105",))
    assert found.settings.per_file_ignores == (("tests/*", ("TM2",)),)
    assert found.settings.severities == (("TM1", Severity.WARNING), ("TM101", Severity.ERROR))
    assert found.settings.own == OwnNames(("acme.go_back",), ("take_step",), ("wipe",), ("cut",), ("plain",), ("quiet",))
    assert [one.patterns for one in found.exclusions.patterns] == [(".git", "build/"), ("*_pb2.py",)]
    assert (found.exclusions.folders, found.exclusions.forced) == (frozenset(), True)
    assert (found.follow_imports, found.jobs, found.output_format) == (False, 3, "json")
    placed = (found.project_root, found.cache_dir, found.baseline, found.folder)
    assert placed == (str(folder / "src"), None, str(folder / "known.json"), str(folder))


def test_without_a_file_everything_is_as_by_default(folder: Path) -> None:
    found = configure(["src"])
    plain = Configuration()
    assert set(found.origins.values()) == {"default"}
    assert found.settings.enabled_codes() == plain.settings.enabled_codes()
    assert (found.exclusions, found.follow_imports, found.jobs) == (plain.exclusions, True, None)


@pytest.mark.parametrize(
    ("paths", "code"),
    [
        (["src/deep/a.py"], "TM201"),
        (["src/deep"], "TM201"),
        (["src/deep", "src/deep/a.py"], "TM201"),
        (["src/deep/new.py"], "TM201"),
        (["src"], "TM101"),
        (["tests"], "TM101"),
        (["src/deep", "tests"], "TM101"),
        (["."], "TM101"),
        ([], "TM101"),
    ],
)
def test_the_nearest_table_above_all_paths_holds(folder: Path, paths: list[str], code: str) -> None:
    config(folder, f'{HEAD}select = ["TM101"]\n')
    (folder / "src" / "deep").mkdir()
    config(folder / "src", '[tool.ruff]\nselect = ["TM9"]\n')  # one without a table of ours
    config(folder / "src" / "deep", f'{HEAD}select = ["TM201"]\n')
    (folder / "src" / "deep" / "a.py").touch()
    assert configure(paths).settings.select == (code,)


def test_a_file_that_is_named_and_none_at_all(folder: Path) -> None:
    config(folder, f'{HEAD}select = ["TM101"]\n')
    (folder / "ci").mkdir()
    config(folder / "ci", f'{HEAD}select = ["TM201"]\nproject-root = "src"\n', "lint.toml")
    found = configure(["src"], file="ci/lint.toml")
    assert (found.settings.select, found.project_root, found.origins["select"]) == (("TM201",), str(folder / "src"), "ci/lint.toml")
    assert configure(["src"], isolated=True).settings.select is None


@pytest.mark.parametrize(
    ("file", "above", "expected"),
    [
        ({"select": ["TM1"], "ignore": ["TM105"]}, {"select": ["TM2"]}, (("TM2",), (), ())),
        ({"select": ["TM1"], "ignore": ["TM105"]}, {"select": ["TM105"]}, (("TM105",), (), ())),
        ({"select": ["TM1"]}, {"extend-select": ["TM2"]}, (("TM1",), ("TM2",), ())),
        ({"extend-select": ["TM107"]}, {"extend-select": ["TM109"]}, (None, ("TM107", "TM109"), ())),
        ({"ignore": ["TM105", "TM201"]}, {"extend-select": ["TM1"]}, (None, ("TM1",), ("TM201",))),
        ({"ignore": ["TM105"]}, {"ignore": ["TM201"]}, (None, (), ("TM105", "TM201"))),
        ({"select": ["TM105", "TM201"], "extend-select": ["TM107"]}, {"ignore": ["TM1"]}, (("TM201",), (), ("TM1",))),
    ],
)
def test_the_command_line_wins(folder: Path, file: dict[str, list[str]], above: dict[str, list[str]], expected: object) -> None:
    config(folder, HEAD + "".join(f"{key} = {value}\n" for key, value in file.items()))
    found = configure(["src"], {key: Given(value, f"--{key}") for key, value in above.items()}).settings
    assert (found.select, found.extend_select, found.ignore) == expected


def test_patterns_are_relative_to_where_they_are_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config(folder, f'{HEAD}extend-exclude = ["/a.py"]\n')
    for place in ("a.py", "b.py", "src/a.py", "src/b.py"):
        (folder / place).write_text(LEAKY)
    monkeypatch.chdir(folder / "src")
    result = command("check", "..", "--extend-exclude", "/b.py")
    assert reported(result) == ["../b.py:11:9: TM201", "../src/a.py:11:9: TM201"]


def test_exclusions(folder: Path) -> None:
    config(folder, f'{HEAD}extend-exclude = ["gen/", "*_pb2.py"]\n')
    for place in ("src/gen", "src/.tox"):
        (folder / place).mkdir()
    for place in ("src/a.py", "src/x_pb2.py", "src/gen/g.py", "src/gen/g_pb2.py", "src/.tox/t.py"):
        (folder / place).write_text(LEAKY)

    def files(*arguments: str) -> list[str]:
        return [line.partition(":")[0] for line in reported(command("check", *arguments))]

    assert files(".") == ["./src/a.py"]
    assert files("src/gen", "src/x_pb2.py", "src/.tox") == ["src/gen/g.py", "src/x_pb2.py", "src/.tox/t.py"]
    assert files("src/gen", "src/x_pb2.py", "src/.tox/t.py", "src/a.py", "--force-exclude") == ["src/a.py"]
    assert files(".", "--exclude", "a.py") == ["./src/.tox/t.py"]
    assert files(".", "--exclude", "a.py", "--isolated") == [
        f"./src/{place}" for place in (".tox/t.py", "gen/g.py", "gen/g_pb2.py", "x_pb2.py")
    ]


def test_per_file_ignores_and_severities(folder: Path) -> None:
    config(
        folder, f'{HEAD}per-file-ignores = {{"tests/*" = ["TM1"], "/src/b.py" = ["TM"]}}\nseverity = {{TM = "warning", TM201 = "error"}}\n'
    )
    for place in ("src/a.py", "src/b.py", "tests/a.py"):
        (folder / place).write_text(BOTH)
    (folder / "src" / "b.py").write_text(LEAKY + "]")
    result = command("check", ".", "--output-format", "json")
    import json

    found = [(row["path"], row["code"], row["severity"]) for row in json.loads(result.out)["findings"]]
    assert found == [
        ("./src/a.py", "TM101", "warning"),
        ("./src/a.py", "TM201", "error"),
        ("./tests/a.py", "TM201", "error"),
    ]
    assert json.loads(result.out)["errors"] == []  # TM901 is among what is not reported in src/b.py


def test_own_names_reach_check_and_fix_and_the_cache(folder: Path) -> None:
    (folder / "a.py").write_text(WRAPPED)
    cache = ("--cache-dir", "cache")
    assert command("check", "a.py", *cache).status == 0
    config(folder, f'{HEAD}api = {{backward = ["acme.go_back"], step = ["take_step"]}}\n')
    for _ in range(2):
        assert reported(command("check", "a.py", *cache)) == ["a.py:6:9: TM101"]
    assert command("check", "a.py", "--isolated", *cache).status == 0
    diff = command("fix", "a.py", "--diff", "--unsafe-fixes").out
    assert "+        optimizer.zero_grad()" in diff


def test_the_given_root_is_where_imports_are_looked_for(folder: Path) -> None:
    loop = "def train(m, loader, optimizer):\n    for x in loader:\n        learn(m, x, optimizer)\n"
    (folder / "src" / "train.py").write_text(f"import torch\nfrom tests.steps import learn\n\n\n{loop}")
    (folder / "tests" / "steps.py").write_text("def learn(m, x, optimizer):\n    m(x).sum().backward()\n    optimizer.step()\n")
    config(folder, HEAD)
    assert reported(command("check", "src")) == ["src/train.py:7:9: TM101"]
    config(folder, f'{HEAD}project-root = "src"\n')
    assert command("check", "src").status == 0
    assert reported(command("check", "src", "--project-root", ".")) == ["src/train.py:7:9: TM101"]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ('selct = ["TM1"]', ":3: selct: there is no such key; did you mean 'select'?"),
        ('select = "TM1"', ":3: select: expected an array of strings, found a string"),
        ('select = ["TM10", 3]', ":3: select: expected strings alone"),
        ('ignore = ["TM29"]', ":3: ignore: no rule has a code that starts with 'TM29'; did you mean TM209?"),
        ("jobs = 0", ":3: jobs: 0 is neither a number from 1 on nor 'auto'"),
        ("jobs = true", ":3: jobs: True is neither a number from 1 on nor 'auto'"),
        ("no-imports = 1", ":3: no-imports: expected true or false, found an integer"),
        ('baseline = ""', ":3: baseline: it is empty"),
        ('project-root = "nowhere"', ":3: project-root: there is no folder '{folder}/nowhere'"),
        ('severity = {TM101 = "x"}', ":3: severity.TM101: 'x' is none of error, warning; did you mean 'warning'?"),
        ('per-file-ignores = {"!a/*" = ["TM1"]}', ':3: per-file-ignores."!a/*": a pattern cannot be negated here'),
        ("api = {step = 2020-02-02}", ":3: api.step: expected an array of strings, found a date or time"),
        ('[tool.flake8_torchmem.api]\nzero-gard = ["x"]', ":4: api.zero-gard: there is no such key; did you mean 'zero-grad'?"),
        ('api.step = ["a b"]', ":3: api.step: 'a b' is no name like 'clear_gradients' or 'package.module.clear_gradients'"),
        ("[tool.flake8_torchmem.apis]", ":3: apis: there is no such key; did you mean 'api'?"),
        ("[tool.flake8-torchmem]", ":3: there is no table [tool.flake8-torchmem]; did you mean [tool.flake8_torchmem]?"),
        ("x = [", ":4: not valid TOML: Invalid value"),
        ("select = []\nselect = []", ":4: not valid TOML: Cannot overwrite a value"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(folder: Path, line: str, cause: str) -> None:
    config(folder, f"# a comment on select = 1\n{HEAD}{line}\n")
    with pytest.raises(ConfigurationError) as raised:
        configure(["src"])
    said = str(raised.value).replace(str(folder), "{folder}")
    assert said.replace(": [tool.flake8_torchmem] ", ": ", 1) == f"pyproject.toml{cause}"
    assert "valid TOML" in said or "[tool.flake8_torchmem]" in said


def test_all_that_is_wrong_is_said_at_once(folder: Path) -> None:
    keys = 'selct = ["TM1"]\nignore = ["TM29", "TM1", "TMX"]\njobs = 0\nexclude = ["[z-a]"]\n'
    rest = 'per-file-ignores = {"!a" = ["TM1"], b = ["TM29"]}\nseverity = {TM101 = "x", TM102 = "y"}\n'
    rest += 'api = {step = ["a b", "c-d"], stop = ["x"]}\n'
    config(folder, HEAD + keys + rest)
    result = command("check", "src", "--project-root", "nowhere", "--extend-select", "TM99,TM107")
    assert (result.status, result.out) == (2, "")
    assert [line.partition("; did")[0].replace(str(folder), "") for line in result.err.splitlines()] == [
        "Error: pyproject.toml:2: [tool.flake8_torchmem] selct: there is no such key",
        "Error: pyproject.toml:3: [tool.flake8_torchmem] ignore: no rule has a code that starts with 'TM29'",
        "Error: pyproject.toml:3: [tool.flake8_torchmem] ignore: no rule has a code that starts with 'TMX'",
        "Error: pyproject.toml:4: [tool.flake8_torchmem] jobs: 0 is neither a number from 1 on nor 'auto'",
        "Error: pyproject.toml:5: [tool.flake8_torchmem] exclude: malformed: bad character range z-a",
        'Error: pyproject.toml:6: [tool.flake8_torchmem] per-file-ignores."!a": a pattern cannot be negated here',
        "Error: pyproject.toml:6: [tool.flake8_torchmem] per-file-ignores.b: no rule has a code that starts with 'TM29'",
        "Error: pyproject.toml:7: [tool.flake8_torchmem] severity.TM101: 'x' is none of error, warning",
        "Error: pyproject.toml:7: [tool.flake8_torchmem] severity.TM102: 'y' is none of error, warning",
        *(
            f"Error: pyproject.toml:8: [tool.flake8_torchmem] api.step: '{name}' is no name like "
            "'clear_gradients' or 'package.module.clear_gradients'"
            for name in ("a b", "c-d")
        ),
        "Error: pyproject.toml:8: [tool.flake8_torchmem] api.stop: there is no such key",
        "Error: --extend-select: no rule has a code that starts with 'TM99'",
        "Error: --project-root: there is no folder '/nowhere'",
    ]
    assert command("check", "src", "--isolated", "--extend-select", "TM107").status == 0


def test_what_has_no_end_of_mistakes_is_not_read_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look for what may have been meant, and for the line, takes time."""
    looked_for: list[str] = []

    def nearest(word: str, _known: object) -> str:
        looked_for.append(word)
        return ""

    monkeypatch.setattr(table, "nearest", nearest)
    config(folder, HEAD + "".join(f"key{number} = 1\n" for number in range(1_000)))
    with pytest.raises(ConfigurationError) as raised:
        configure(["src"])
    assert len(raised.value.causes) == len(looked_for) == MOST_SAID
    entries = ", ".join(f'"a{number}" = ["TM29"]' for number in range(1_000))
    config(folder, f"{HEAD}per-file-ignores = {{{entries}}}\n")
    with pytest.raises(ConfigurationError) as raised:
        configure(["src"])
    assert len(raised.value.causes) == MOST_SAID


def test_the_commands_refuse_a_wrong_file(folder: Path) -> None:
    config(folder, f'{HEAD}"sel\u202ect\\u001b" = 1\n')
    (folder / "a.py").write_text(LEAKY)
    for name in ("check", "fix"):
        result = torchmem(name, "a.py", cwd=folder)
        assert (result.status, result.out) == (2, "")
        assert (
            result.err
            == "Error: pyproject.toml: [tool.flake8_torchmem] \"sel\\u202ect\\x1b\": there is no such key; did you mean 'select'?\n"
        )
        assert torchmem(name, "a.py", "--isolated", cwd=folder).status in (0, 1)
        assert torchmem(name, "a.py", "--isolated", "--config", "x", cwd=folder).status == 2
    assert (folder / "a.py").read_text() != LEAKY  # `fix --isolated` did its work


def test_files_of_others_may_be_broken(folder: Path) -> None:
    (folder / "pyproject.toml").write_bytes(b"[tool.black\xff")
    assert configure(["src"]).folder == str(folder)
    (folder / "pyproject.toml").write_bytes(b"# \xff\n[tool.flake8_torchmem]\n")
    with pytest.raises(ConfigurationError, match=r"^pyproject.toml:1: not valid UTF-8$"):
        configure(["src"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--select", "TMX"], "Error: --select: no rule has a code that starts with 'TMX'; did you mean TM901?"),
        (["--project-root", "nowhere"], "Error: --project-root: there is no folder '{folder}/nowhere'"),
        (["--jobs", "many"], "Error: --jobs: 'many' is neither a number from 1 on nor 'auto'"),
        (["--config", "no.toml"], "Error: no.toml: no such file"),
        (["--config", "other.toml"], "Error: other.toml: there is no table [tool.flake8_torchmem]"),
    ],
)
def test_what_is_wrong_on_the_command_line(folder: Path, arguments: list[str], message: str) -> None:
    config(folder, "[tool.ruff]\n", "other.toml")
    result = command("check", "src", *arguments)
    assert (result.status, result.out, result.err) == (2, "", message.replace("{folder}", str(folder)) + "\n")


def test_the_settings_that_are_shown_make_themselves_again(folder: Path) -> None:
    config(folder, FULL.replace('"build/"', '"b\\"\\u007f/"'))
    first = configure(["src"])
    config(folder, "\n".join(lines(first)))
    again = configure(["src"])
    assert again.values == first.values
    assert tomllib.loads("\n".join(lines(again))) == tomllib.loads("\n".join(lines(first)))


def test_settings_are_shown_with_their_origins(folder: Path) -> None:
    config(folder, f'{HEAD}select = ["TM1"]\nextend-exclude = ["gen/"]\nno-imports = true\n')
    arguments = ("--show-settings", "--extend-exclude", "a,b", "--imports")
    result = command("check", *arguments, env={"TORCHMEM_CACHE_DIR": "kept"})
    shown = result.out.splitlines()
    assert (result.status, result.err) == (0, "")
    for line in (
        'select = ["TM1"]  # pyproject.toml',
        "ignore = []  # default",
        'extend-exclude = ["gen/", "a", "b"]  # pyproject.toml, --extend-exclude',
        "no-imports = false  # --no-imports",
        f'cache-dir = "{folder / "kept"}"  # TORCHMEM_CACHE_DIR',
        "# baseline is not set  # default",
    ):
        assert line in shown
    assert shown[-1].startswith("# rules that run: TM101, ")
    assert "TM201" not in shown[-1]


def test_standard_input_is_configured_by_its_name(folder: Path) -> None:
    config(folder / "src", f'{HEAD}ignore = ["TM2"]\n')
    for name, status in (("a.py", 1), ("src/a.py", 0)):
        assert command("check", "-", "--stdin-display-name", name, stdin=LEAKY).status == status


def flake8(*arguments: str, cwd: Path) -> Result:
    return run([str(SCRIPTS / "flake8"), "--select=TM", *arguments], cwd)


@pytest.mark.parametrize("file", ["setup.cfg", "tox.ini", ".flake8"])
def test_flake8s_files(folder: Path, file: str) -> None:
    (folder / "a.py").write_text(WRAPPED)
    config(folder, "[flake8]\ntorchmem-backward = other, acme.go_back\ntorchmem-step =\n    take_step\n    more\n", file)
    assert reported(flake8("a.py", cwd=folder)) == ["a.py:6:9: TM101"]


def test_worker_processes_of_flake8_know_the_names(folder: Path) -> None:
    for name in ("a.py", "b.py"):
        (folder / name).write_text(WRAPPED)
    arguments = ("-j2", "--torchmem-backward=acme.go_back", "--torchmem-step=take_step", "a.py", "b.py")
    assert reported(flake8(*arguments, cwd=folder)) == ["a.py:6:9: TM101", "b.py:6:9: TM101"]
    assert flake8(*arguments, "--torchmem-zero-grad=take_step", cwd=folder).status == 0


def test_flake8_refuses_wrong_values(folder: Path) -> None:
    for option, cause in (
        ("--torchmem-step=a-b", "--torchmem-step: 'a-b' is no name like 'clear_gradients' or 'package.module.clear_gradients'"),
        ("--torchmem-project-root=nowhere", "--torchmem-project-root: there is no folder 'nowhere'"),
    ):
        result = flake8(option, "src", cwd=folder)
        assert result.status == 1
        assert result.out.splitlines()[-1] == cause
    result = flake8("--torchmem-step=a-b,c", "--torchmem-detach=d-e", "--torchmem-project-root=nowhere", "src", cwd=folder)
    assert [line.partition(": ")[0] for line in result.out.splitlines()[-3:]] == [
        "--torchmem-project-root",
        "--torchmem-step",
        "--torchmem-detach",
    ]
