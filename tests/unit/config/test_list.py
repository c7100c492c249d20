"""--list and `stn list`: every name, the sweeps, and architectures that match a pattern."""

import re

import pytest

from stn import __main__ as stn_command
from stn.commands.begin import begin
from stn.commands.list import list_names
from stn.config.yaml_files import RECIPES


def _names(out: str) -> list[str]:
    return re.findall(r"^│ ([\w/.]+) +│", out, re.MULTILINE)


def _listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as left:
        begin(words, draws=False)
    assert left.value.code == 0
    return _names(capsys.readouterr().out)


STN = ["stn_c0", "stn_c0_coord", "stn_cx", "stn_dlx", "stn_slx"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("stn*", STN),
        ("stn", STN),  # what a shell makes of stn* where there is a folder stn
        ("STN-C*", STN[:3]),
        ("?n?", ["cnn"]),
        ("*[ds]lx", STN[3:]),
        ("slx", STN[4:]),
    ],
)
def test_a_pattern_lists_the_architectures_like_it(
    pattern: str, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _listed(["--list", pattern], capsys) == names
    assert _listed([f"--list={pattern}", "--arch", "cnn"], capsys) == names
    assert stn_command.main(["list", pattern]) == 0
    assert _names(capsys.readouterr().out) == names


@pytest.mark.parametrize("words", [["--list"], ["--list="], ["--list", "--arch", "cnn"], ["--list", "*"]])
def test_without_a_pattern_everything_is_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    names = _listed(words, capsys)
    sweeps = sorted(path.stem for path in (RECIPES / "sweeps").glob("*.yaml"))
    assert names[-len(sweeps) :] == sweeps
    assert {"stn_c0_coord", "mnist_s", "cifar10", "tutorial", "configs/finnveden_r.yaml"} <= set(names)
    assert list_names() == 0
    assert _names(capsys.readouterr().out) == names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--list", "vit*"], "no architecture matches 'vit*'; --list without a pattern has them all"),
        (["--arch", "stn*"], "no architecture 'stn*'; a pattern goes to --list, which prints those like it"),
        (["--list", "a", "b"], "b belongs to no flag; "),
    ],
)
def test_a_pattern_in_the_wrong_place_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        begin(words, draws=False)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


@pytest.mark.parametrize("words", [["a", "b"], ["--foo"]])
def test_stn_list_takes_one_pattern(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        stn_command.main(["list", *words])
    assert "error: list takes a pattern, such as 'stn*', and --plugin MODULE, got" in capsys.readouterr().err


def test_the_line_of_a_sweep_is_a_sentence() -> None:
    for path in (RECIPES / "sweeps").glob("*.yaml"):
        assert path.read_text().splitlines()[0].endswith((".", "?")), path.name
