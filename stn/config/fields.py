"""The types of a configuration's fields, and a one-line message for each fault."""

import re
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stn.config.registry import canonical, nearest, same_name
from stn.config.seed_list import parse_seeds

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,20})?) ?(?:(epoch|step)s?|%)")


def _duration(text: str) -> str:
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(
            "a duration is a number of epochs or steps or a share of the run: '2 epochs', '500 steps', '30 %'"
        )
    return f"{match[1]} {match[2] + 's' if match[2] else '%'}"


def _seeds(text: str) -> str:
    parse_seeds(text)
    return text


def _folder_name(name: str) -> str:
    if "/" in name or name.startswith(".") or not name.isprintable() or len(name.encode()) > 200:
        raise ValueError("cannot be a folder's name: it is long, begins with a '.', or has a '/' or control character")
    return name


def _wandb_name(what: str, most: int) -> AfterValidator:
    """Return the validator of a name that W&B lists and filters by."""

    def check(name: str) -> str:
        if not 1 <= len(name) <= most or not name.isprintable() or name != name.strip():
            raise ValueError(f"{what} on W&B has 1 to {most} printable characters, without spaces around it")
        return name

    return AfterValidator(check)


def _split_at_commas(tags: Any) -> Any:
    """Split 'a,b' into two tags, as W&B does with WANDB_TAGS."""
    tags = [tag.strip() for tag in tags.split(",")] if isinstance(tags, str) else tags
    texts = isinstance(tags, tuple | list) and all(isinstance(tag, str) for tag in tags)
    return tuple(part for tag in tags for part in tag.split(",")) if texts else tags


def _wandb_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    if len(tags) > 20:
        raise ValueError(f"at most 20 tags, got {len(tags)}")
    return tuple(dict.fromkeys(tags))


def _wandb_entity(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise ValueError("a user or team on W&B has 1 to 64 letters, digits, '-', '_' and '.'")
    return name


def _wandb_project(name: str) -> str:
    if not 1 <= len(name) <= 128 or not name.isprintable() or set(name) & set("/\\#?%:"):
        raise ValueError("a project on W&B has 1 to 128 printable characters, and none of / \\ # ? % :")
    return name


def _wandb_notes(text: str) -> str:
    if len(text) > 10_000 or not all(char.isprintable() or char in "\n\t" for char in text):
        raise ValueError("notes are at most 10,000 printable characters")
    return text


Duration = Annotated[str, AfterValidator(_duration)]
WandbTags = Annotated[
    tuple[Annotated[str, _wandb_name("a tag", 64)], ...], BeforeValidator(_split_at_commas), AfterValidator(_wandb_tags)
]
WandbEntity = Annotated[str, AfterValidator(_wandb_entity)]
WandbProject = Annotated[str, AfterValidator(_wandb_project)]
WandbGroup = Annotated[str, _wandb_name("a group", 128)]
WandbNotes = Annotated[str, AfterValidator(_wandb_notes)]
Seeds = Annotated[str, AfterValidator(_seeds)]
FolderName = Annotated[str, AfterValidator(_folder_name)]
OneLine = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=1000)]
Positive = Annotated[int, Field(gt=0, le=1_000_000_000)]
Few = Annotated[int, Field(gt=0, le=1024)]
"""A number of processes, devices or seeds at once."""
Fraction = Annotated[float, Field(ge=0, lt=1)]


def name_of(kind: str) -> Any:
    """Return the validator of a field that names a registry entry, in any spelling."""
    return AfterValidator(lambda name: canonical(kind, name))


@cache
def choices(annotation: Any) -> tuple[str, ...]:
    """Return the words that a field of this type accepts; () if it is not a Literal."""
    if get_origin(annotation) is Literal:
        return tuple(word for word in get_args(annotation) if isinstance(word, str))
    return tuple(word for part in get_args(annotation) if get_origin(part) for word in choices(part))


def short(flag: str) -> Any:
    """Return the annotation that gives a field a short flag, which is also a top-level key in YAML."""
    return tyro.conf.arg(aliases=[f"--{flag}"])


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one line per faulty key, with the nearest valid name for an unknown one."""
    lines: dict[Any, list[str]] = {}
    for fault in error.errors():
        add = lines.setdefault(fault["loc"][:1], []).append
        where, text = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            add(f"unknown key {where!r:.80}; {nearest(where, model.model_fields)}")
        elif isinstance(fault["input"], dict):  # the section's own message
            add(f"{where}: {text}")
        else:
            add(f"{where}: {text[0].lower()}{text[1:]} (got {fault['input']!r:.80})")
    return "\n".join(" or ".join(texts) for texts in lines.values())


def first_lines(text: str, most: int = 10) -> str:
    """Return the first lines of a list of faults, and how many more there are."""
    lines = text.splitlines()
    return "\n".join([*lines[:most], *[f"and {len(lines) - most} more"] * (len(lines) > most)])


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        for key, value in values.items():
            field = type(self).model_fields.get(key)
            if isinstance(value, str) and field is not None:
                values[key] = same_name(value, choices(field.annotation))
            if isinstance(value, bool) and field is not None and "bool" not in str(field.annotation):
                reason = "YAML reads yes, no, on and off as booleans; quote it"
                raise ValueError(f"{key}: {value} is not valid here ({reason})")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(explain(error, type(self))) from None


def steps_of(duration: str, steps_per_epoch: int | None = None, run: float | None = None) -> int:
    """Convert a duration to steps; only unresolved durations need the other arguments."""
    number, unit = duration.split()
    whole = {"steps": 1, "epochs": steps_per_epoch, "%": run and run / 100}[unit]
    assert whole is not None or not float(number), f"{duration} is not resolved"
    return round(float(number) * (whole or 0))
