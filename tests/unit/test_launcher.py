"""Settings of Accelerate's launcher are flags of ours, or refused."""

import os
from pathlib import Path

import pytest
from accelerate.utils import DynamoBackend

from launch.sweep.commands import Submission, start_sweep
from stn.config import command_line
from stn.config.flags.launcher import launcher_settings
from stn.config.resolve import resolve
from stn.config.schema import Config
from stn.training.runtime import Runtime


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {}),
        ({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_FSDP": "false"}, {}),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1"}, {}),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, {"train": {"precision": "bf16"}}),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, {"train": {"compile": True}}),
    ],
)
def test_settings_that_flags_stand_for(environ: dict, expected: dict) -> None:
    assert launcher_settings(environ) == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACCELERATE_MIXED_PRECISION", "fp8"),
        ("ACCELERATE_DYNAMO_BACKEND", "EAGER"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_USE_FSDP", "true"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_USE_MEGATRON_LM", "true"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true"),
        ("ACCELERATE_DOWNCAST_BF16", "true"),
    ],
)
def test_other_settings_are_refused(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"^the launcher asks for"):
        launcher_settings({variable: value})


def test_the_launchers_precision_is_taken_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    for words in ([], ["--precision", "bf16"], ["--config", "configs/s4.yaml"]):
        assert command_line.parse(words)[0].train.precision == "bf16"
    with pytest.raises(SystemExit) as exit_:
        command_line.parse(["--precision", "fp32"])
    assert exit_.value.code == 2
    assert "the launcher asks for bf16" in capsys.readouterr().err


def test_accelerate_does_not_compile_what_the_launcher_asks_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """train_block compiles; Accelerate, too, reads the variable."""
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    (config,) = command_line.parse([])
    assert config.train.compile
    plugin = Runtime(resolve(config), 1).accelerator.state.dynamo_plugin
    assert plugin is not None
    assert plugin.backend == DynamoBackend.NO


def test_what_would_compute_fp32_in_less_is_dropped(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    monkeypatch.setenv("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1")
    monkeypatch.setenv("DNNL_DEFAULT_FPMATH_MODE", "strict")
    for count in (2, 0):
        command_line.parse(["--arch", "cnn"])
        out = capsys.readouterr().out
        assert (out.count("warning: "), out.count("BF16 is ignored: no signature would say it")) == (count, count // 2)
    assert "ONEDNN_DEFAULT_FPMATH_MODE" not in os.environ


@pytest.mark.parametrize(
    ("visible", "counted", "chosen", "told"),
    [
        (None, "2", None, True),
        ("0,1", None, None, True),
        ("", "2", None, False),
        ("-1", "2", None, False),
        (None, None, None, False),
        (None, "2", "true", False),
    ],
)
def test_lost_gpus_are_told(
    visible: str | None, counted: str | None, chosen: str | None, told: bool, monkeypatch, capsys
) -> None:
    given = {"CUDA_VISIBLE_DEVICES": visible, "SLURM_GPUS_ON_NODE": counted, "ACCELERATE_USE_CPU": chosen}
    for name, value in given.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    Runtime(Config(), 1)
    assert capsys.readouterr().out.count("warning: PyTorch finds none of the GPUs") == told


COPIES = "error: srun has started 4 copies of this command, which would train the same seeds; use sbatch slurm/train.sh"


@pytest.mark.parametrize(
    ("environ", "refused"),
    [
        ({}, True),
        ({"SLURM_PTY_PORT": "7", "SLURM_PROCID": "3"}, True),
        ({"SLURM_PTY_PORT": "7", "SLURM_PROCID": "0"}, False),
        ({"WORLD_SIZE": "4"}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
    ],
)
def test_copies_that_srun_starts_are_refused(
    environ: dict[str, str], refused: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in ("SLURM_PTY_PORT", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"} | environ).items():
        monkeypatch.setenv(name, value)
    assert command_line.parse(["--list"])
    if not refused:
        assert command_line.parse([])
        return
    with pytest.raises(SystemExit) as exit_:
        command_line.parse([])
    assert (exit_.value.code, capsys.readouterr().err.startswith(COPIES)) == (2, True)


def test_a_sweep_in_copies_is_refused_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_PTY_PORT", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(ValueError, match="srun has started 4 copies"):
        start_sweep("smoke", Submission(runs=str(tmp_path)))
    assert not list(tmp_path.iterdir())
