"""Entity, group, tags and notes on W&B: what it takes, in one line otherwise, and never in a signature."""

from typing import Any

import pytest

from stn.config.resolve import resolve, signature
from stn.config.schema import Config
from stn.config.yaml_files import build_config

GOOD = {
    "wandb_project": ["stn", "my project_2", "x" * 128],
    "wandb_entity": ["me", "my-team_2", "a.b", "x" * 64],
    "wandb_group": ["mine", "a group: x/y", "x" * 128],
    "wandb_tags": [["a"], ["x" * 64, "two words", "é"], [f"t{i}" for i in range(20)]],
    "wandb_notes": ["", "one\ntwo", "x" * 10_000],
    "wandb_artifact": [True],
}
BAD = {
    "wandb_project": ["", "team/stn", "50%", "a\nb", "x" * 129],
    "wandb_entity": ["", "a/b", "a b", "x" * 65],
    "wandb_group": ["", " a", "a\nb", "x" * 129],
    "wandb_tags": [[""], ["a,"], ["a, b"], ["x" * 65], [" a"], ["a\tb"], [f"t{i}" for i in range(21)]],
    "wandb_notes": ["x" * 10_001, "a\x00b"],
}


def build(key: str, value: Any) -> Config:
    return build_config({"log": {key: value}}, "here")


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in GOOD.items() for value in values])
def test_what_wandb_takes_moves_no_signature(key: str, value: Any) -> None:
    config = resolve(build(key, value))
    assert signature(config) == signature(resolve(Config()))
    assert config.model_dump(mode="json")["log"][key] == value


def test_tags_with_commas_between_are_several() -> None:
    assert build("wandb_tags", ["a,b c", "d"]).log.wandb_tags == ("a", "b c", "d")


def test_defaults_are_the_clients_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the configuration, so that an upload from a machine without them goes to the same place."""
    before = signature(resolve(Config()))
    kept = {"PROJECT": "mine", "ENTITY": "team", "RUN_GROUP": "all of it", "TAGS": "a, b", "NOTES": "why"}
    for name, text in kept.items():
        monkeypatch.setenv(f"WANDB_{name}", text)
    log = Config().log
    assert [log.wandb_project, log.wandb_entity, log.wandb_group, log.wandb_notes] == [
        "mine",
        "team",
        "all of it",
        "why",
    ]
    assert log.wandb_tags == ("a", "b")
    assert build("wandb_project", "other").log.wandb_project == "other"
    assert signature(resolve(Config())) == before
    monkeypatch.setenv("WANDB_ENTITY", "a/b")
    with pytest.raises(ValueError, match="letters, digits"):
        build("wandb_project", "other")


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_what_it_does_not_take_is_one_line(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"log: {key}(\.\d)?: .*(has|are|at most) .*\(got ") as caught:
        build(key, value)
    assert len(str(caught.value).splitlines()) == 1
