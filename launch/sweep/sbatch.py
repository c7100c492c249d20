"""sbatch: the options that a sweep file gives it under ``slurm``, the site's variables, and how it is called."""

import os
import re
import subprocess
import sys
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from stn.config.fields import Section
from stn.config.registry import nearest
from stn.config.source import INSTALLED, SOURCE

MAIL_TYPES = ("NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT", "TIME_LIMIT")
MAIL_TYPES += ("TIME_LIMIT_90", "TIME_LIMIT_80", "TIME_LIMIT_50", "ARRAY_TASKS")
SET_BY_LAUNCHER = (
    *("array", "chdir", "cpus-per-task", "dependency", "error", "job-name", "no-requeue", "ntasks", "open-mode"),
    *("output", "parsable", "requeue", "signal", "test-only", "wait", "wrap"),
)
"""Options of sbatch that the launcher sets; refused in a sweep file."""
GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "tres-per-task")
"""Options of sbatch that can ask for GPUs, besides gres; a job without the sweep's ``gpus`` would not use them."""
OVERRULING = {f"SBATCH_{name.replace('-', '_').upper()}" for name in (*SET_BY_LAUNCHER, "array-inx", "export")}
"""Variables that would win over these options in our scripts, or keep our variables from the jobs."""


def slurm_minutes(time: str) -> int:
    """Return the minutes of a time as Slurm writes it: 90, 90:00, 1:30:00, 2-12, 2-12:30 or 2-12:30:00."""
    match = re.fullmatch(r"(?:([0-9]{1,5})-)?([0-9]{1,6})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?", time.strip())
    if not match:
        raise ValueError("is not a time as Slurm writes it, such as 240, '4:00:00' or 2-12")
    days, *parts = match.groups(default="")
    numbers = [int(part) for part in parts if part]
    if days or len(numbers) == 3:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    total = int(days or 0) * 24 * 60 + hours * 60 + minutes + -(-seconds // 60)
    if not total:
        raise ValueError("is no time at all")
    return total


def _mail_type(name: str) -> str:
    if name.upper() not in MAIL_TYPES:
        raise ValueError(f"no mail type '{name:.80}'; {nearest(name.upper(), MAIL_TYPES)}")
    return name.upper()


def _extra(option: str) -> str:
    match = re.fullmatch(r"--([a-z][a-z0-9-]*)(=.*)?", option)
    if not match:
        raise ValueError("is not a long option of sbatch with its value after '=', such as '--nice=100'")
    # sbatch accepts abbreviations of its options.
    for name in (*KEYS, *SET_BY_LAUNCHER):
        if name.startswith(match[1]):
            reason = f"is the key {name}" if name in KEYS else f"is not for a sweep file; the launcher sets --{name}"
            raise ValueError(f"--{match[1]} {reason}")
    return option


Value = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$")]
MailTypes = Annotated[
    list[Annotated[str, AfterValidator(_mail_type)]],
    BeforeValidator(lambda types: types.replace(" ", "").split(",") if isinstance(types, str) else types),
]
Extra = Annotated[Value, AfterValidator(_extra)]


class SlurmOptions(Section):
    """The keys of ``slurm`` in a sweep file: options of sbatch, by Slurm's own names.

    A key wins over the variable SBATCH_* of the same option, and that over the sweep's time, memory and gpus.
    """

    partition: Value | None = None
    account: Value | None = None
    qos: Value | None = None
    constraint: Value | None = None
    gres: Value | None = None
    """In addition to gpus, unless it names GPUs itself: gpu:a100:2 with ``gpus: 2``."""
    time: Annotated[str, AfterValidator(lambda time: slurm_minutes(time) and time.strip())] | None = None
    """In place of the sweep's time: 240, '4:00:00', 2-12."""
    mem: Annotated[str, Field(pattern=r"^[0-9]{1,12}[KMGT]?$")] | None = None
    """In place of the sweep's memory."""
    mail_user: Value | None = None
    mail_type: MailTypes | None = None
    """Such as END,FAIL: of an array as a whole, with ARRAY_TASKS of each job."""
    extra: Annotated[list[Extra], Field(default_factory=list, max_length=100)]
    """Other long options: '--nice=100'."""

    def __init__(self, /, **values: Any) -> None:
        for key in values:
            if key.replace("_", "-") not in KEYS:
                raise ValueError(f"unknown key {key!r:.80}; {nearest(key.replace('_', '-'), KEYS)}")
        super().__init__(**{key.replace("-", "_"): value for key, value in values.items()})

    def gpus(self) -> int | None:
        """Return the GPUs of a node that ``gres`` asks for; None if it names none."""
        parts = [part.removeprefix("gres/").split(":") for part in (self.gres or "").split(",")]
        counts = [int(part[-1]) if part[-1].isdigit() else 1 for part in parts if part[0] == "gpu"]
        return sum(counts) if counts else None

    def check(self, gpus: int | None) -> None:
        """Raise ValueError if ``gres`` and the sweep's ``gpus`` contradict each other, or ``extra`` asks for GPUs."""
        asked = self.gpus()
        if asked is not None and asked != (gpus or 0):
            raise ValueError(f"slurm.gres asks for {asked} GPUs of a job, gpus for {gpus or 'none'}; add gpus: {asked}")
        for option in self.extra:
            name = option.removeprefix("--").partition("=")[0]
            if "gpu" in option and any(known.startswith(name) for known in GPU_OPTIONS):  # sbatch takes abbreviations
                raise ValueError(
                    f"slurm.extra: {option} asks for GPUs that the training would not use; write gpus: N in its place, "
                    "and their type as slurm: {gres: gpu:TYPE:N}"
                )

    def options(self, gpus: int | None) -> list[str]:
        """Return the options that the section gives; ``gpus`` is the sweep's key."""
        values = {key: getattr(self, key.replace("-", "_")) for key in KEYS if key != "extra"}
        if self.gres and gpus and self.gpus() is None:
            values["gres"] = f"gpu:{gpus},{self.gres}"
        if self.mail_type:
            values["mail-type"] = ",".join(self.mail_type)
        return [f"--{key}={value}" for key, value in values.items() if value] + self.extra

    def report_options(self) -> list[str]:
        """Return the options for the job that writes the report."""
        return [f"--{key}={value}" for key in ("partition", "account", "qos") if (value := getattr(self, key))]


KEYS = tuple(key.replace("_", "-") for key in SlurmOptions.model_fields)


def directive(option: str) -> str:
    """Return the #SBATCH line of an option, in sbatch's quotes: unlike the shell's, '\\' escapes in all of them."""
    plain = re.fullmatch(r"[\w@%+=:,./-]+", option, re.ASCII)
    quoted = option if plain else '"' + re.sub(r'([\\"])', r"\\\1", option) + '"'
    return f"#SBATCH {quoted}"


def run_slurm(*words: str, **variables: str) -> str:
    """Return the output of a Slurm command, run without the variables of the job that we may be in.

    It is a ValueError if Slurm is not installed here or refuses the command.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SQUEUE_")) or k == "SLURM_CONF"}
    env = {k: v for k, v in env.items() if k not in OVERRULING}
    env |= {"STN_ROOT": str(SOURCE)} | variables
    if SOURCE == INSTALLED:  # a clone's slurm/env.sh names the environment
        env["STN_VENV"] = env.get("STN_VENV") or sys.prefix
    try:
        return subprocess.run(words, check=True, capture_output=True, text=True, env=env).stdout
    except FileNotFoundError:
        raise ValueError(f"no Slurm on this machine ({words[0]} not found); use --dry-run to see the script") from None
    except subprocess.CalledProcessError as error:
        raise ValueError((error.stderr.strip().splitlines() or [str(error)])[-1]) from None


@cache
def site_variables() -> dict[str, str]:
    """Return the variables SBATCH_* as slurm/env.sh sets them, sourced here so that the user need not."""
    try:
        printed = run_slurm("bash", "-c", '. "$STN_ROOT/slurm/env.sh" >&2 && env -0')
    except ValueError as error:
        raise ValueError(f"{SOURCE / 'slurm' / 'env.sh'}: {error}") from None
    variables = dict(entry.split("=", 1) for entry in printed.split("\0") if "=" in entry)
    return {name: value for name, value in variables.items() if name.startswith("SBATCH_") and name not in OVERRULING}


def gpus_of_the_site() -> str:
    """Return the site's variables that ask for GPUs, as NAME=VALUE; empty if none does."""
    names = [f"SBATCH_{name.replace('-', '_').upper()}" for name in (*GPU_OPTIONS, "gres")]
    given = [f"{name}={site_variables()[name]}" for name in names if site_variables().get(name)]
    return ", ".join(text for text in given if "gpu" in text.lower())


def sbatch(*words: str) -> str:
    """Submit a job and return its id."""
    return run_slurm("sbatch", "--parsable", *words, **site_variables()).strip().split(";")[0]
