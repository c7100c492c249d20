"""Input that was written to harm, or by mistake: one line each, before it takes time or memory."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from launch.sweep.expand import build_cells
from launch.sweep.plan import Sweep
from stn.config import command_line
from stn.config.fields import Section
from stn.config.resolve import resolve
from stn.config.schema import Config, Log, Train
from stn.config.seed_list import parse_seeds
from stn.config.yaml_files import build_config, load_yaml, normalise, read_mapping, read_yaml
from stn.runs import lease

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
YAML = {
    "seeds: 010": "line 1: 010 has a '_', or is octal",
    "lr: 0.1\nseeds: 1_0": "line 2: 1_0 has a '_'",
    "steps: 1:30": "base 60",
    "steps: 0x10": "hexadecimal",
    "lr: 1_0.5": "write a decimal number, or quote it",
    "lr: 1:30.5": "base 60",
    f"steps: {'1' * 400}": "or long",
    f"steps: {'1' * 5000}": "or long",
    "optim:\n  lr: 1\n  lr: 2": "line 3: 'lr' is given twice",
    "lr: 1\nseeds: 0\nlr: 1": "line 3: 'lr' is given twice",
    "a: " + "[" * 3000 + "]" * 3000: "nested too deeply",
    "".join(" " * i + "a:\n" for i in range(900)): "nested too deeply",
    BOMB: "more than 100,000 values",
    "a: &a {b: &b {<<: [*b, *b]}}": "more than 100,000 values",
    "a: &a [*a]": "more than 100,000 values",
    "a: [" + "1, " * 110_000 + "1]": "more than 100,000 values",
    "a: !!int ''": "line 1: the tag 'tag:yaml.org,2002:int' is not supported",
    "a: !!python/name:os.system": "is not supported",
    "a: = ": "is not YAML",
    'a: "\\U99999999"': "is not YAML",
    "a: \0": "is not YAML",
    "a: \ufeff b: c": "is not YAML",
    "0": "expected 'key: value' lines, got int",
    "false": "expected 'key: value' lines, got bool",
    "# " + "x" * 1_000_000: "larger than 1,000,000 bytes",
}


@pytest.mark.parametrize("text", YAML, ids=lambda text: repr(text[:20]))
def test_a_yaml_file_that_is_not_what_it_looks_like_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(YAML[text])) as error:
        read_mapping(path)
    assert str(error.value).isprintable()
    assert str(path) in str(error.value)


def test_what_no_file_should_be_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in ("/dev/full", "/dev/zero", "/dev/null", tmp_path / "fifo", tmp_path):
        with pytest.raises(ValueError, match=r"not a regular file$"):
            read_mapping(path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.yaml is not YAML: 'utf-8' codec can't decode byte 0xe9"):
        read_mapping(tmp_path / "latin.yaml")


def test_what_is_plain_in_yaml_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: 1e-3\nb: [-1, +2, 0, .5, 1., 1.0e+16, 0.10]\nc: 2024-01-01\nd: '010'\ne: &x {f: 1}\ng: *x\n")
    assert read_mapping(path) == {
        "a": "1e-3", "b": [-1, 2, 0, 0.5, 1.0, 1e16, 0.1], "c": "2024-01-01", "d": "010", "e": {"f": 1}, "g": {"f": 1}
    }  # fmt: skip
    path.write_text("base: &base {lr: 0.1, momentum: 0.5}\noptim: {<<: *base, lr: 0.2}\n")
    assert read_mapping(path)["optim"] == {"lr": 0.2, "momentum": 0.5}
    path.write_text("1: 2\nself: 3\n")
    assert read_mapping(path) == {"1": 2, "self": 3}
    path.write_text("")
    assert read_mapping(path) == {}


@pytest.mark.parametrize("seeds", ["0 1", "0, 1 2", "0-3 5", "٣", "1_0", "0\n1", "1" * 5000, "-1", "", ",", "0x1"])
def test_seeds_without_commas_are_no_other_seed(seeds: str) -> None:
    with pytest.raises(ValueError, match="with commas between: 0,1 or 0,8-15") as error:
        parse_seeds(seeds)
    assert len(str(error.value)) < 200
    with pytest.raises(ValueError, match="seeds: cannot read"):
        Train(seeds=seeds)


def test_blanks_around_commas_and_hyphens_are_none() -> None:
    assert parse_seeds(" 0, 3 ,8 - 10 ") == [0, 3, 8, 9, 10]


def test_many_ranges_are_no_more_seeds_than_one() -> None:
    with pytest.raises(ValueError, match=r"goes beyond seed .* or 1,000,000 seeds"):
        parse_seeds(",".join(f"{i}-{i + 999_999}" for i in range(0, 2_000_000_000, 1_000_000)))


def _fields(model: type[Section]) -> list[tuple[type[Section], str, FieldInfo]]:
    fields = [(model, key, field) for key, field in model.model_fields.items()]
    sections: dict[str, Any] = {key: field.annotation for _, key, field in fields}
    if model is Config:
        return [field for section in sections.values() for field in _fields(section)]
    return fields


ALL = [field for model in (Config, Sweep) for field in _fields(model)]
NUMBERS = [field for field in ALL if re.search(r"\b(int|float)\b", str(field[2].annotation))]


@pytest.mark.parametrize(("model", "key", "field"), NUMBERS, ids=[f"{m.__name__}.{key}" for m, key, _ in NUMBERS])
def test_every_number_has_a_bound(model: type[Section], key: str, field: FieldInfo) -> None:
    """A new field of the schema, too: an integer that nobody means, a float that is infinite."""
    required: Any = {"name": "x", "seeds": "0"} if issubclass(model, Sweep) else {}
    whole = re.search(r"\bint\b", str(field.annotation))
    for value in (10**13, 10**400, str(10**400)) if whole else (10**400, str(10**400), "1e400", float("inf")):
        with pytest.raises(ValueError, match=rf"^{key}[.:]") as error:
            model(**required | {key: value})
        assert len(str(error.value).splitlines()) == 1
        assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--arch.iterations 100000000", "iterations: input should be less than or equal to 100 (got 100000000)"),
        ("--arch.parallel 1000000", "parallel: input should be less than or equal to 100 (got 1000000)"),
        ("--arch.size 100000", "size: input should be less than or equal to 1024 (got 100000)"),
        ("--batch-size 100001", "batch_size: input should be less than or equal to 100000 (got 100001)"),
        ("--epochs 1e7", "epochs: input should be less than or equal to 1000000 (got 10000000.0)"),
        ("--steps 9999999999999", "steps: input should be less than or equal to 1000000000000"),
        ("--processes 1000000", "processes: input should be less than or equal to 1024"),
        ("--fuse 5000", "less than or equal to 1024 (got 5000) or fuse.literal['auto']: input should be 'auto'"),
        (f"--batch-size {'1' * 400}", f"error: a number has 300 digits or more: {'1' * 40}..."),
        (f"--lr {'1' * 5000}", "error: a number has 300 digits or more"),
        (f"--seeds=0-{'1' * 5000}", "error: a number has 300 digits or more"),
        ("--lr 1e400", "lr: input should be a finite number (got inf)"),
        (f"--eval.every {'1' * 200}steps", "a duration is a number of epochs or steps"),
        (f"--lr {','.join(map(str, range(1, 1100)))}", "have more than 1,000 combinations"),
        ("--lr 1,2 --seeds 0-999998", "2 settings have more than 1,000,000 seeds together"),
        (f"--name {'x' * 300}", "cannot be a folder's name"),
        ("--name a/../../b", "cannot be a folder's name"),
        ("--name ..", "cannot be a folder's name"),
        ("--name a\nb", "cannot be a folder's name"),
        ("--name a\x1bb", "cannot be a folder's name"),
        ("--runs a\nb", "runs: string should match pattern"),
        (f"--runs {'x' * 2000}", "runs: string should have at most 1000 characters"),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_the_command_line_has_bounds(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit, match="2"):
        command_line.parse(words.split(" "))
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize("seconds", ["x", "0", "-1", "nan", "inf", ""])
def test_a_lease_of_no_number_of_seconds_is_one_line(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lease._seconds(seconds)
    assert f"error: STN_LEASE_S is {seconds!r}, not a number of seconds above 0" in capsys.readouterr().err


def test_what_is_resolved_can_be_read_again() -> None:
    """A duration in epochs may have more steps than a duration may have."""
    with pytest.raises(ValueError, match=r"eval: every: a duration is .* \(got '468999999999531 steps'\)"):
        resolve(Config(**normalise({"eval": {"every": "999999999999 epochs"}}, "x")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["arch: [a]", "arch: {name: [a]}", "optim: {self: 1}", "data: {name: {}}", "optim: {lr: {}}"]
)
def test_a_value_of_another_shape_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"c\.yaml") as error:
        build_config(command_line.overlay(read_yaml(tmp_path / "c.yaml")), tmp_path / "c.yaml")
    assert len(str(error.value).splitlines()) == 1


def test_long_values_are_short_in_messages(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"lr: {'x' * 100_000}\n")
    with pytest.raises(ValueError, match="unable to parse") as error:
        load_yaml(tmp_path / "c.yaml")
    assert len(str(error.value)) < 1000
    assert Log(name="a name, ünïcode").name == "a name, ünïcode"


def test_of_many_faults_the_first_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("arch:\n" + "".join(f"  wrong{i}: 1\n" for i in range(30)))
    with pytest.raises(ValueError, match="wrong9") as error:
        load_yaml(path)
    assert str(error.value).splitlines()[10:] == ["and 20 more"]
    grid = {"arch": ["cnn"], "optim.loc_lr_multiplier": [i / 100 for i in range(30)]}
    sweep = Sweep(name="x", seeds="0", base={}, exclude=[], grid=grid)
    with pytest.raises(ValueError, match="means nothing") as error:
        build_cells(sweep, str(tmp_path))
    assert str(error.value).splitlines()[10:] == ["and 20 more", "add combinations that cannot be trained to exclude"]
