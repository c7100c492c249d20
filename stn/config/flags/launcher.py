"""What Accelerate's launcher asks for: its options and configuration files reach a script as environment variables."""

import os
import subprocess
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

import psutil

from stn.config.yaml_files import Sections

_UNSUPPORTED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context or sharded data parallelism",
    "ACCELERATE_DOWNCAST_BF16": "bf16 in place of every float",
}
_ARITHMETIC = {"ONEDNN_DEFAULT_FPMATH_MODE": "STRICT", "DNNL_DEFAULT_FPMATH_MODE": "STRICT"}
_ARITHMETIC |= {"NVIDIA_TF32_OVERRIDE": "", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "0"}
"""Variables with which libraries compute fp32 in less, and the value that changes nothing."""
PARENT = os.getppid()
"""Id of the parent process, read before torch is imported: the parent may die during the import."""
_LAUNCHER_VARIABLES = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")
"""Environment variables: accelerate launch and torchrun set one of them in every process."""
_OFF = ("", "0", "no", "false", "off", "none")


def launched() -> bool:
    """Whether a launcher has started this process."""
    return any(name in os.environ for name in _LAUNCHER_VARIABLES)


def launched_alone() -> bool:
    """Whether this is the only process of accelerate launch --cpu --num_processes 2, which starts no second one."""
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ:
        with suppress(psutil.Error):  # the launcher, not the user's shell, has set the address to meet at
            return "MASTER_ADDR" not in psutil.Process(os.getppid()).environ()
    return False


def refuse_copies(environ: Mapping[str, str]) -> None:
    """Raise ValueError if srun has started this command several times: each copy would train the same seeds.

    The first task of srun --pty is alone: it has the terminal, in which its shell may start a training."""
    copies = environ.get("SLURM_STEP_NUM_TASKS") or "1"
    alone = "SLURM_PTY_PORT" in environ and environ.get("SLURM_PROCID") == "0"
    if copies != "1" and "WORLD_SIZE" not in environ and not alone:
        raise ValueError(
            f"srun has started {copies} copies of this command, which would train the same seeds; "
            "use sbatch slurm/train.sh, which trains in several processes, or srun -n 1; "
            "if each has seeds of its own, start it by env -u SLURM_STEP_NUM_TASKS"
        )


def launcher_settings(environ: Mapping[str, str]) -> Sections:
    """Return the fields that the launcher sets; ValueError for a setting without a field."""

    def given(variable: str) -> str:
        value = environ.get(variable, "").lower()
        return "" if value in _OFF else value

    train: dict[str, object] = {}
    if precision := given("ACCELERATE_MIXED_PRECISION"):
        if precision not in ("bf16", "fp16"):
            raise _refusal(f"{precision} precision", "ACCELERATE_MIXED_PRECISION")
        train["precision"] = precision
    if backend := given("ACCELERATE_DYNAMO_BACKEND"):
        if backend != "inductor":
            raise _refusal(f"the dynamo backend {backend}", "ACCELERATE_DYNAMO_BACKEND")
        train["compile"] = True
    if given("ACCELERATE_GRADIENT_ACCUMULATION_STEPS") not in ("", "1"):
        raise ValueError("the launcher asks for gradient accumulation; use --optim.accumulate instead")
    for variable, what in _UNSUPPORTED.items():
        if given(variable):
            raise _refusal(what, variable)
    return {"train": train} if train else {}


def silence_reducer(environ: MutableMapping[str, str]) -> None:
    """Keep DDP from warning of find_unused_parameters, which Runtime sets on purpose; before torch is imported."""
    if environ.get("WORLD_SIZE", "1") != "1":
        environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def drop_arithmetic(environ: MutableMapping[str, str]) -> list[str]:
    """Drop variables that change what fp32 is, before torch reads them; return a line for each that would have."""
    dropped = {name: environ.pop(name, "") for name in _ARITHMETIC}
    return [
        f"{name}={value} is ignored: no signature would say it; fp32 is fp32, and --train.tf32 is the other choice"
        for name, value in dropped.items()
        if value.upper() not in ("", _ARITHMETIC[name])
    ]


def _refusal(what: str, variable: str) -> ValueError:
    return ValueError(
        f"the launcher asks for {what} ({variable}), which train.py does not support; take it out of the "
        "launcher's options, its --config_file or your default configuration (accelerate env prints it)"
    )


_REPEAT = """
import sys, time
import psutil
pid, message = int(sys.argv[1]), sys.argv[2]
for _ in range(200):
    try:
        ended = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        ended = True
    if ended:
        sys.stderr.write(message)
        break
    time.sleep(0.05)
"""


def repeat_below_traceback(message: str) -> None:
    """Print an error again once the launcher has ended: it prints a traceback of its own below ours."""
    with suppress(psutil.Error, OSError):
        if any("accelerate" in word or "torchrun" in word for word in psutil.Process(PARENT).cmdline()[:4]):
            text = "\n" * sys.stderr.isatty() + message + "\n"
            words = [sys.executable, "-c", _REPEAT, str(PARENT), text]
            subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
