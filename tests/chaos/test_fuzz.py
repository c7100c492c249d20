"""Every parser takes what it is given or refuses it in one short line: the short form of tests/chaos/fuzz.py."""

import time
from pathlib import Path

import pytest

from tests.chaos import fuzz
from tests.chaos.parsers import Parser, parsers
from tests.chaos.victim import WORDS
from tests.support.trainer import only_run, train

INPUTS = 100
NAMES = (
    *("configuration", "seed list", "duration", "command line", "sweep", "manifest", "plan", "lease", "uploads"),
    "earlier report",
    *(f"reader of {name}" for name in ("results.jsonl", "metrics.jsonl", "status.json", "env.json", ".rows/0")),
    *("answers", "test images", "checkpoint", "foreign safetensors", "foreign pickle", "packed images", "CIFAR-10"),
)


@pytest.fixture(scope="module")
def every_parser(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parser]:
    folder = tmp_path_factory.mktemp("fuzz")
    assert train(*WORDS, runs=folder / "finished").returncode == 0
    return parsers(folder / "parsers", only_run(folder / "finished").path)


def test_all_parsers_are_tried(every_parser: dict[str, Parser]) -> None:
    assert sorted(every_parser) == sorted(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_only_one_short_line_comes_out(name: str, every_parser: dict[str, Parser], tmp_path: Path) -> None:
    parser = every_parser[name]
    found = fuzz.fuzz(parser, name, max(1, round(INPUTS * parser.share)), 0, tmp_path)
    assert not found, f"python -m tests.chaos.fuzz --only '{name}' --inputs {INPUTS}"


def test_an_example_is_read_by_its_parser(every_parser: dict[str, Parser]) -> None:
    """Else only the first check of each parser would be tested."""
    for name in NAMES:
        if name not in ("CIFAR-10", "checkpoint"):  # whose hashes no example has
            every_parser[name].parse(every_parser[name].examples[0])


def _die(content: bytes) -> None:
    raise SystemExit


def _say(text: str):
    def parse(content: bytes) -> None:
        raise ValueError(text)

    return parse


def _compute(content: bytes) -> None:
    end = time.process_time() + 1.2
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(
    ("parse", "fault"),
    [
        (lambda content: {}[content], "KeyError"),
        (_say("x" * 1000), "a message that is too long"),
        (_say("a\x1b[31m"), "cannot be printed"),
        (_say(""), "a message that is empty"),
        (_compute, "takes 1 s"),
        (lambda content: bytearray(2**31), "takes more than 1024 MiB"),
        (_die, "the process died"),
    ],
)
def test_each_kind_of_fault_is_noticed(parse, fault: str, tmp_path: Path) -> None:
    (found,) = fuzz.fuzz(Parser([b"x"], parse), "one", 1, 0, tmp_path)
    assert fault in found
    assert fuzz.fuzz(Parser([b"x"], len), "good", 5, 0, tmp_path) == {}
