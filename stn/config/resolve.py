"""Resolve a configuration: check it, fill in every default, and turn epochs into steps.

The resolved configuration is printed by --check and kept with the run; its signature identifies the experiment.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, get_args

from stn.config import registry
from stn.config.dataset import Dataset, build_dataset, find_dataset
from stn.config.fields import Duration, steps_of
from stn.config.plugins import plugin_of
from stn.config.schema import Arch, Config

DEFAULT_EPOCHS = 8.0
MOST_STEPS = 10_000_000
"""The learning rates of all steps are made at the start, in half a minute."""
_NOT_SCIENCE = {
    "checkpoint": True,
    "log": True,
    "data": {"root"},
    "optim": {"accumulate"},
    "train": {"seeds", "epochs", "fraction", "compile", "cuda_graph", "conv", "parallel"}
    | {"fuse", "processes", "threads", "time_limit", "plugins", "profile"},
    "eval": {"batch_size", "metrics"},
}
"""Sections and fields that a signature leaves out: they do not change a result."""
_ADDED_LATER = (("data", "cutout", 0), ("data", "alternate_flip", False), ("eval", "mirror", False))
"""Fields younger than the first signatures: at these values a signature leaves them out, so that old ones hold."""
_EVERY_SCORE = {"acc", "error", "loss", "count", "top5_acc"}
"""Names, without the split, of the scores that every evaluation has."""


def validate(config: Config) -> None:
    """Raise ValueError for combinations of fields that cannot be trained, whatever the data set and architecture."""
    optim, data, train = config.optim, config.data, config.train
    if train.epochs is not None and train.steps is not None:
        raise ValueError("give epochs or steps, not both")
    if optim.name != "sgd" and optim.momentum is not None:
        raise ValueError(f"optim.name {optim.name} takes no momentum; it has optim.betas")
    if optim.nesterov and (optim.name != "sgd" or optim.momentum == 0):
        raise ValueError("optim.nesterov needs optim.name sgd and a momentum above 0")
    if optim.schedule == "multistep" and not optim.milestones:
        raise ValueError("optim.schedule multistep needs optim.milestones")
    if optim.accumulate > data.batch_size:
        raise ValueError(f"optim.accumulate {optim.accumulate} exceeds batch_size {data.batch_size}")
    if not 0 < data.scale[0] <= data.scale[1]:
        raise ValueError(f"data.scale needs two rising numbers above 0, got {data.scale}")
    if train.precision == "fp16" and train.fuse not in ("auto", 1):
        raise ValueError("fp16 cannot fuse seeds: one seed's overflow would skip a step of all; use bf16")


def _resolve_arch(arch: Arch, dataset: Dataset) -> Arch:
    defaults = registry.find("arch", arch.name).options
    values: dict[str, Any] = {"net": arch.net or dataset.net}
    registry.find("net", values["net"])
    for option, default in defaults.items():
        given = getattr(arch, option, None)
        values[option] = default if given is None else given
    for option, value in arch:
        if option not in defaults and option not in ("name", "net") and value not in (None, False):
            raise ValueError(f"{arch.name} has no option '{option}'; it takes {', '.join(defaults) or 'none'}")
    takes_points = "transform" not in values or "points" in registry.find("transform", values["transform"]).options
    if arch.points not in (None, defaults.get("points")) and not takes_points:
        raise ValueError(f"arch.points means nothing to arch.transform {values['transform']}; it belongs to tps")
    depth = values.get("depth")
    if isinstance(depth, tuple) and len(depth) == 1:
        values["depth"] = depth[0]
    if values.get("test_iterations", 0) is None:
        values["test_iterations"] = values["iterations"]
    return arch.model_copy(update=values)


def _in_steps(config: Config, steps_per_epoch: int, run: int) -> dict[str, Any]:
    """Return all sections with durations in steps; those of a schedule shrink with train.fraction."""

    def steps(duration: str, part: float) -> str:
        whole = steps_of(duration, steps_per_epoch, run / part)
        return f"{round(part * whole) or min(whole, 1)} steps"

    is_duration = get_args(Duration)[1]
    sections: dict[str, Any] = {}
    for name in Config.model_fields:
        section, update = getattr(config, name), {}
        part = config.train.fraction if name in ("optim", "eval") else 1
        for key, value in section:
            if key in type(section).model_fields and is_duration in type(section).model_fields[key].metadata:
                update[key] = steps(value, part)
            elif key == "milestones":
                update[key] = tuple(steps(v, part) for v in value)
        sections[name] = section.model_copy(update=update)
    return sections


def resolve(config: Config) -> Config:
    """Fill in every default and turn epochs into steps; ValueError for what cannot be trained."""
    dataset = build_dataset(config.data.name)
    data, train, optim = config.data, config.train, config.optim
    if data.validation >= dataset.train:
        raise ValueError(f"data.validation {data.validation} leaves nothing of {dataset.train} training images")
    images = min(data.limit_train or dataset.train, dataset.train - data.validation)
    steps_per_epoch = -(-images // data.batch_size)
    length = train.steps or (train.epochs or DEFAULT_EPOCHS) * steps_per_epoch
    steps = max(1, round(train.fraction * length))
    if steps > MOST_STEPS:
        raise ValueError(f"{steps:,} steps are more than the {MOST_STEPS:,} that a run can have")
    sections = _in_steps(config, steps_per_epoch, steps)
    sections["arch"] = arch = _resolve_arch(config.arch, dataset)
    for key, pixels in (("crop", data.crop), ("cutout", data.cutout)):
        if pixels >= min(dataset.shape[1:]):
            raise ValueError(f"data.{key} {pixels} is as large as the image; it has {min(dataset.shape[1:])} pixels")
    if data.alternate_flip and not data.flip:
        raise ValueError("data.alternate_flip says when images are mirrored, so it needs --data.flip")
    if not data.perturb_train and dataset.perturb is None:
        raise ValueError(f"data.perturb_train cannot be off: {data.name} is not perturbed")
    if not data.perturb_train and dataset.shape[1:] != (dataset.side, dataset.side):
        raise ValueError(
            f"data.perturb_train cannot be off: plain images are {dataset.side} pixels wide, "
            f"{data.name}'s {dataset.shape[2]}"
        )
    if optim.loc_lr_multiplier != 1 and not registry.find("arch", arch.name).may_localise:
        raise ValueError(f"{arch.name} has no localisation net, so optim.loc_lr_multiplier means nothing")
    warmup = steps_of(sections["optim"].warmup)
    if warmup >= steps and warmup:
        hint = "give a shorter --optim.warmup, or shorten both with --fraction"
        raise ValueError(f"optim.warmup of {warmup} steps leaves nothing of the {steps} steps of the run; {hint}")
    if optim.schedule == "onecycle" and not warmup and float(optim.warmup.split()[0]) and round(0.3 * steps):
        raise ValueError(f"optim.warmup of {optim.warmup} is less than one step")
    for duration in ("eval", "checkpoint", "log"):
        if steps_of(sections[duration].every) < 1:
            raise ValueError(f"{duration}.every is less than one step")
    if optim.schedule == "step" and steps_of(sections["optim"].step_every) < 1:
        raise ValueError("optim.step_every is less than one step")
    if taken := set(config.eval.metrics) & _EVERY_SCORE:
        raise ValueError(f"eval.metrics: {min(taken)} is the name of a number that every evaluation has")
    if optim.name == "sgd" and optim.momentum is None:
        sections["optim"] = sections["optim"].model_copy(update={"momentum": 0.9})
    name = config.log.name or f"{arch.name}-{data.label}"
    whole = {"steps": steps, "epochs": None, "fraction": 1.0, "plugins": _plugins(config, arch)}
    sections["train"] = train.model_copy(update=whole)
    sections["log"] = sections["log"].model_copy(update={"name": name})
    return Config(**{name: section.model_dump() for name, section in sections.items()})  # type: ignore[arg-type]


def _plugins(config: Config, arch: Arch) -> tuple[str, ...]:
    """Return the plugins that were named, and those installed ones that the configuration uses."""
    found = map(plugin_of, entries_of(config.model_copy(update={"arch": arch})))
    return tuple(dict.fromkeys([*config.train.plugins, *filter(None, found)]))


def entries_of(config: Config) -> list[registry.Entry]:
    """Return what a configuration picks from the registry."""
    arch = config.arch
    used = [registry.find("arch", arch.name), find_dataset(config.data.name)]
    used[1:1] = [registry.find("net", arch.net)] if arch.net else []  # none before it is resolved
    used += [registry.find("metric", name) for name in config.eval.metrics]
    return used + ([registry.find("transform", arch.transform)] if arch.transform else [])


def resolve_all(configs: Sequence[Config]) -> list[Config]:
    """Resolve configurations that train beside each other; ValueError if two are the same experiment."""
    resolved = [resolve(config) for config in configs]
    if len(set(map(signature, resolved))) < len(resolved):
        raise ValueError("two --lr / --optim.weight-decay combinations resolve to the same configuration; drop one")
    return resolved


def signature(config: Config) -> str:
    """Return the hash of every resolved field that can change the result."""
    assert config.train.steps is not None, "only a resolved configuration has a signature"
    science = config.model_dump(mode="json", exclude=_NOT_SCIENCE)
    if ":" in config.data.name:  # what is in a file counts, not where it lies
        science["data"]["name"] = build_dataset(config.data.name).content
    elif content := build_dataset(config.data.name).content:
        science["data"]["content"] = content
    for section, field, value in _ADDED_LATER:
        if science[section][field] == value:
            del science[section][field]
    return hashlib.sha256(json.dumps(science, sort_keys=True).encode()).hexdigest()[:12]
