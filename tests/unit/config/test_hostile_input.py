"""Numbers, seeds and command lines that were given to harm, or by mistake: one line each."""

import re
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from launch.sweep.plan import Sweep
from stn.config import command_line
from stn.config.fields import Section
from stn.config.resolve import resolve
from stn.config.schema import Config, Train
from stn.config.seed_list import parse_seeds
from stn.config.yaml_files import normalise
from stn.runs import lease


@pytest.mark.parametrize("seeds", ["0 1", "0, 1 2", "0-3 5", "٣", "1_0", "0\n1", "1" * 5000, "-1", "", ",", "0x1"])
def test_seeds_without_commas_are_refused(seeds: str) -> None:
    with pytest.raises(ValueError, match="with commas between: 0,1 or 0,8-15") as error:
        parse_seeds(seeds)
    assert len(str(error.value)) < 200
    with pytest.raises(ValueError, match="seeds: cannot read"):
        Train(seeds=seeds)


def test_blanks_around_commas_and_hyphens_are_ignored() -> None:
    assert parse_seeds(" 0, 3 ,8 - 10 ") == [0, 3, 8, 9, 10]


def test_many_ranges_are_bounded_as_one_is() -> None:
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
    """Try an absurd integer and an infinite float in every numeric field, including those added later."""
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
def test_a_lease_length_that_is_not_a_number_is_one_line(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lease._seconds(seconds)
    assert f"error: STN_LEASE_S is {seconds!r}, not a number of seconds above 0" in capsys.readouterr().err


def test_a_resolved_configuration_can_be_read_again() -> None:
    """A duration in epochs may have more steps than a duration may have."""
    with pytest.raises(ValueError, match=r"eval: every: a duration is .* \(got '468999999999531 steps'\)"):
        resolve(Config(**normalise({"eval": {"every": "999999999999 epochs"}}, "x")))  # type: ignore[arg-type]
