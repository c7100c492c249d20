"""--check: what differs from the defaults first, then the network; everything with --check full."""

import pytest
import yaml

from stn.commands.check import check, differences
from stn.config import command_line
from stn.config.resolve import resolve
from stn.config.schema import Config


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--check", "short"),
        ("--arch cnn --check --lr 0.1", "short"),
        ("--check short", "short"),
        ("--check full --arch cnn", "full"),
        ("--check=full", "full"),
        ("--check FULL", "full"),
        ("--arch cnn", None),
    ],
)
def test_check_takes_a_value_or_none(words: str, expected: str | None) -> None:
    (command,) = command_line.parse(words.split())
    assert command.check == expected


def test_check_takes_no_other_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.parse(["--check", "all"])
    assert "all" in capsys.readouterr().err


def test_only_what_was_said_differs() -> None:
    assert differences(Config()) == []
    (command,) = command_line.parse(["--check", "--config", "configs/cifar10.yaml", "--lr", "0.5", "--seeds", "0"])
    rows = {name: (value, default) for name, value, default in differences(command)}
    assert rows["optim.lr"] == ("0.5", "0.001")
    assert rows["data.name"] == ("cifar10", "mnist")
    assert not {"train.seeds", "arch.padding", "train.steps", "eval.batch_size"} & rows.keys()


def test_the_whole_configuration_is_printed_on_request_and_last(capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = command_line.parse(["--check", "--batch-size", "64"])
    check([resolve(command)], command)
    short = capsys.readouterr().out
    assert short.index("data.batch_size") < short.index("Conv2d") < short.index("signature")
    assert short.splitlines()[-1] == "all settings: --check full"
    assert "eval:" not in short
    check([resolve(command)], command, full=True)
    long = capsys.readouterr().out
    assert long.startswith(short.removesuffix("all settings: --check full\n"))
    printed = yaml.safe_load(long[long.index("\narch:") :])
    assert Config(**printed) == resolve(command)
