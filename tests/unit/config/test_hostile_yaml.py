"""YAML that was written to harm, or by mistake: one line each, before it takes time or memory."""

import os
import re
from pathlib import Path

import pytest

from launch.sweep.expand import build_cells
from launch.sweep.plan import Sweep
from stn.config import command_line
from stn.config.schema import Log
from stn.config.yaml_files import build_config, load_yaml, read_mapping, read_yaml

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
def test_misleading_yaml_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(YAML[text])) as error:
        read_mapping(path)
    assert str(error.value).isprintable()
    assert str(path) in str(error.value)


def test_devices_pipes_and_other_encodings_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in ("/dev/full", "/dev/zero", "/dev/null", tmp_path / "fifo", tmp_path):
        with pytest.raises(ValueError, match=r"not a regular file$"):
            read_mapping(path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.yaml is not YAML: 'utf-8' codec can't decode byte 0xe9"):
        read_mapping(tmp_path / "latin.yaml")


def test_plain_yaml_values_are_read_as_written(tmp_path: Path) -> None:
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
