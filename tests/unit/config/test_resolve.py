"""Seed lists, durations and signatures, and resolved configurations."""

import json
from pathlib import Path

from stn.config.fields import steps_of
from stn.config.resolve import resolve, signature
from stn.config.schema import Arch, Config, Data, Eval, Log, Optim, Train
from stn.config.seed_list import format_seeds, parse_seeds
from stn.config.yaml_files import dump_yaml, load_yaml


def test_seed_lists_round_trip() -> None:
    assert parse_seeds("0,3,8-10") == [0, 3, 8, 9, 10]
    assert format_seeds([10, 9, 8, 3, 0]) == "0,3,8-10"


def test_durations() -> None:
    assert steps_of("2 epochs", 938) == 1876
    assert steps_of("0.5 epochs", 938) == 469
    assert steps_of("500 steps", 938) == 500
    assert steps_of("20.8 %", 98, 4900) == 1019
    assert [Log(every=text).every for text in ("1epoch", "5steps", "7.5%")] == [
        "1 epochs",
        "5 steps",
        "7.5 %",
    ]


def sig(**sections) -> str:
    return signature(resolve(Config(**sections)))


def test_signature_is_of_the_resolved_science() -> None:
    base = sig()
    assert base == sig(arch=Arch(name="stn_slx", depth=1, net="finnveden_r", padding="border"))
    assert base == sig(train=Train(epochs=8)) == sig(train=Train(steps=8 * 469))
    assert base == sig(train=Train(seeds="5-9", fuse=2, threads=1, time_limit=3), log=Log(name="x", runs="y"))
    assert base == sig(data=Data(root="/somewhere"), optim=Optim(accumulate=4))
    others = [
        sig(arch=Arch(depth=2)),
        sig(train=Train(epochs=7)),
        sig(data=Data(limit_train=100)),
        sig(optim=Optim(lr=0.1)),
        sig(train=Train(precision="bf16")),
        sig(data=Data(cutout=4)),
        sig(data=Data(flip=True)),
        sig(data=Data(flip=True, alternate_flip=True)),
    ]
    assert len({base, *others}) == 9


def test_a_fraction_of_a_run_has_all_of_its_schedule() -> None:
    schedule = {"schedule": "multistep", "milestones": ("3 epochs", "2814 steps"), "warmup": "469 steps"}
    tenth = Config(optim=Optim(**schedule), train=Train(epochs=8, fraction=0.1), eval=Eval(every="1 epochs"))
    shorter = {"milestones": ("141 steps", "281 steps"), "warmup": "47 steps", "step_every": "704 steps"}
    same = Optim(**schedule | shorter)
    written_out = Config(optim=same, train=Train(steps=375), eval=Eval(every="47 steps"))
    found = resolve(tenth)
    assert found == resolve(written_out)
    assert found.log.every == "50 steps", "the console is read as before"
    least = resolve(Config(train=Train(epochs=8, fraction=1e-9)))
    assert (least.train.steps, least.eval.every, least.optim.warmup) == (1, "1 steps", "0 steps")
    assert resolve(Config(train=Train(steps=1000, fraction=0.5))).train.steps == 500


def test_a_share_of_a_run_is_of_what_is_run() -> None:
    def found(**train) -> tuple[str, str, str]:
        shares = Config(
            optim=Optim(warmup="20 %"), eval=Eval(every="50 %"), log=Log(every="10 %"), train=Train(**train)
        )
        config = resolve(shares)
        return config.optim.warmup, config.eval.every, config.log.every

    assert found(steps=1000) == ("200 steps", "500 steps", "100 steps")
    assert found(epochs=2) == ("188 steps", "469 steps", "94 steps")
    assert found(steps=1000, fraction=0.1) == found(steps=100) == ("20 steps", "50 steps", "10 steps")


def test_resolved_configuration_reads_back_to_itself(tmp_path: Path) -> None:
    config = resolve(Config(optim=Optim(schedule="multistep", milestones=("3 epochs",)), data=Data(scale=(0.9, 1.1))))
    (tmp_path / "c.yaml").write_text(dump_yaml(config))
    again = resolve(load_yaml(tmp_path / "c.yaml"))
    assert again == config
    assert signature(again) == signature(config)
    assert json.loads(config.model_dump_json())["optim"]["milestones"] == ["1407 steps"]
