"""From what the user wrote to what will be run: every default filled in, every epoch a step.

The resolved configuration is hashed, printed by --check and kept with the run.
"""

from typing import Any, get_args

from stn.config import registry
from stn.config.dataset import Dataset, build_dataset
from stn.config.fields import Duration, steps_of
from stn.config.schema import Arch, Config

DEFAULT_EPOCHS = 8.0


def _arch(arch: Arch, dataset: Dataset) -> Arch:
    known = registry.find("arch", arch.name).options
    values: dict[str, Any] = {"net": arch.net or dataset.net}
    registry.find("net", values["net"])
    for option in Arch.model_fields:
        given = getattr(arch, option)
        if option in ("name", "net"):
            continue
        if option in known:
            values[option] = known[option] if given is None else given
        elif given not in (None, False):
            raise ValueError(f"{arch.name} has no option '{option}'; it takes {', '.join(known) or 'none'}")
    if arch.points not in (None, known.get("points")) and values["transform"] != "tps":
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
    for section in Config.model_fields:
        owner, update = getattr(config, section), {}
        part = config.train.fraction if section in ("optim", "eval") else 1
        for name, field in type(owner).model_fields.items():
            value = getattr(owner, name)
            if is_duration in field.metadata:
                update[name] = steps(value, part)
            elif name == "milestones":
                update[name] = tuple(steps(v, part) for v in value)
        sections[section] = owner.model_copy(update=update)
    return sections


def resolve(config: Config) -> Config:
    """Fill in every default and turn epochs into steps; ValueError for what cannot be trained."""
    dataset = build_dataset(config.data.name)
    data, train, optim = config.data, config.train, config.optim
    if data.validation >= dataset.train:
        raise ValueError(f"data.validation {data.validation} leaves nothing of {dataset.train} training images")
    images = min(data.limit_train or dataset.train, dataset.train - data.validation)
    steps_per_epoch = -(-images // data.batch_size)
    whole = train.steps or (train.epochs or DEFAULT_EPOCHS) * steps_per_epoch
    steps = max(1, round(train.fraction * whole))
    sections = _in_steps(config, steps_per_epoch, steps)
    arch = _arch(config.arch, dataset)
    if data.crop >= min(dataset.shape[1:]):
        raise ValueError(f"data.crop {data.crop} is as large as the image")
    if not data.perturb_train and dataset.perturb is None:
        raise ValueError(f"data.perturb_train cannot be off: {data.name} is not perturbed")
    if not data.perturb_train and dataset.shape[1:] != (dataset.side, dataset.side):
        raise ValueError(
            f"data.perturb_train cannot be off: plain images are {dataset.side} pixels wide, "
            f"{data.name}'s {dataset.shape[2]}"
        )
    if optim.loc_lr_multiplier != 1 and "iterations" not in registry.find("arch", arch.name).options:
        raise ValueError(f"{arch.name} has no localisation net, so optim.loc_lr_multiplier means nothing")
    warmup = steps_of(sections["optim"].warmup)
    if warmup >= steps and warmup:
        raise ValueError(f"optim.warmup of {warmup} steps leaves nothing of the {steps} steps of the run")
    for duration in ("eval", "checkpoint", "log"):
        if steps_of(sections[duration].every) < 1:
            raise ValueError(f"{duration}.every is less than one step")
    if optim.schedule == "step" and steps_of(sections["optim"].step_every) < 1:
        raise ValueError("optim.step_every is less than one step")
    if optim.name == "sgd" and optim.momentum is None:
        sections["optim"] = sections["optim"].model_copy(update={"momentum": 0.9})
    name = config.log.name or f"{arch.name}-{data.name}"
    if "/" in name or name.startswith("."):
        raise ValueError(f"log.name '{name}' cannot be a folder's name")
    return Config(
        **sections
        | {
            "arch": arch,
            "train": train.model_copy(update={"steps": steps, "epochs": None, "fraction": 1.0}),
            "log": sections["log"].model_copy(update={"name": name}),
        }
    )
