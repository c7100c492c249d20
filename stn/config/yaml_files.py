"""A configuration as YAML: reading, layering, building and writing it, and finding recipes by name."""

import re
import stat
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from stn.config import plugins, registry
from stn.config.fields import first_lines
from stn.config.registry import nearest, same_name
from stn.config.schema import Config
from stn.config.source import SOURCE

RECIPES = SOURCE / "configs"


def _short_names() -> dict[str, tuple[str, str]]:
    table = {}
    for section, owner in Config.model_fields.items():
        for key, field in owner.annotation.model_fields.items():  # type: ignore[union-attr]
            for mark in field.metadata:
                for alias in getattr(mark, "aliases", None) or ():
                    table[alias.removeprefix("--").replace("-", "_")] = (section, key)
    return table


SHORT = _short_names()
"""Short name -> (section, key)."""
LENGTHS = {"epochs", "steps"}
"""Keys of train that say the same thing in two units."""


MOST_BYTES = 1_000_000
MOST_NODES = 100_000
"""Values of a YAML file, each counted again wherever an alias repeats it."""
_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]{0,299})|[0-9]*\.[0-9]*(e[-+][0-9]+)?|\.inf|\.nan)", re.IGNORECASE)


class _Loader(yaml.SafeLoader):
    """A loader that refuses values which YAML 1.1 reads in surprising ways, and bounds the size; faults: ValueError."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (as in the base class); dates stay as they are written
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.count, self.sizes = 0, dict[str, int]()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event, before = self.peek_event(), self.count
        node: Any = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            self.count += self.sizes.get(event.anchor, MOST_NODES)  # inside its own anchor it is endless
        else:
            self.count += 1
            self._check(node, explicit=bool(getattr(event, "tag", None)))
            self.sizes[event.anchor] = self.count - before
        if self.count > MOST_NODES:
            raise _fault(node, f"more than {MOST_NODES:,} values")
        return node

    def _check(self, node: Any, explicit: bool) -> None:
        if explicit:
            raise _fault(node, f"the tag {node.tag!r:.80} is not supported")
        if node.tag.endswith((":int", ":float")) and not _NUMBER.fullmatch(node.value):
            why = "has a '_', or is octal, hexadecimal or base 60 in YAML, or long; write a decimal number, or quote it"
            raise _fault(node, f"{node.value:.80} {why}")
        if isinstance(node, yaml.MappingNode):
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for earlier, key in pairwise(sorted(keys, key=lambda key: key.value)):  # stable: the later one is second
                if earlier.value == key.value:
                    raise _fault(key, f"{key.value!r:.80} is given twice")


def _fault(node: Any, text: str) -> ValueError:
    return ValueError(f"line {node.start_mark.line + 1}: {text}")


def find_recipe(name: str, folder: Path = RECIPES, kind: str = "recipe") -> Path:
    """Return the path of a file, or of a recipe by its name (finnveden_r) or its path in the repository."""
    there = is_file = False
    with suppress(OSError):  # the name is too long
        there, is_file = Path(name).exists(), Path(name).is_file()
    if is_file:
        return Path(name)
    known = {path.stem for path in folder.glob("*.yaml")}
    if Path(name).parent in (Path(), *(Path("configs", folder.relative_to(RECIPES)), folder)):
        stem = same_name(Path(name).stem if name.endswith(".yaml") else Path(name).name, known)
        if stem in known:
            return folder / f"{stem}.yaml"
    if there:
        return Path(name)  # a folder or a device: reading it raises the error
    what = f"file or {kind}" if name.endswith(".yaml") or "/" in name else kind
    raise ValueError(f"no {what} {name!r:.80}; {nearest(Path(name).stem, known)}")


Sections = dict[str, dict[str, Any]]
"""Section -> key -> value: a configuration, or what is to be laid over one."""


def normalise(mapping: dict, where: str | Path) -> Sections:
    """Return a mapping by section; short names such as ``lr`` are taken at the top level."""
    values: Sections = {}
    for key, value in mapping.items():
        short = SHORT.get(str(key).replace("-", "_"))
        if isinstance(value, dict):
            section, keys = str(key), {str(name): v for name, v in value.items()}
        elif short:
            section, keys = short[0], {short[1]: value}
        elif key in Config.model_fields:
            raise ValueError(f"{where}: '{key}' needs keys of its own, got {value!r:.80}")
        else:
            hint = nearest(str(key), {*Config.model_fields, *SHORT})
            raise ValueError(f"{where}: unknown key {str(key)!r:.80}; {hint}")
        if twice := values.get(section, {}).keys() & keys:
            raise ValueError(f"{where}: {section}.{min(twice)} is given twice")
        values[section] = values.get(section, {}) | keys
    plugins.load_named(values.get("train", {}))
    return values


def overlay(*layers: Sections) -> Sections:
    """Merge layers key by key; later ones win.

    A length, in epochs or in steps, replaces the lengths of lower layers. An architecture's name drops the options of
    lower layers that it does not have, such as a recipe's under --arch cnn.
    """
    values: Sections = {}
    for layer in layers:
        arch = layer.get("arch", {}).get("name")
        arch = registry.canonical("arch", arch) if isinstance(arch, str) else None
        if arch in registry.entries["arch"]:
            entry = registry.find("arch", arch)
            options = {"name", "net", *entry.options}
            values["arch"] = {key: value for key, value in values.get("arch", {}).items() if key in options}
            if not entry.may_localise:
                values.get("optim", {}).pop("loc_lr_multiplier", None)
        if LENGTHS & layer.get("train", {}).keys():
            values["train"] = {key: value for key, value in values.get("train", {}).items() if key not in LENGTHS}
        for section, keys in layer.items():
            values[section] = values.get(section, {}) | keys
    return values


def build_config(values: Sections, where: str | Path) -> Config:
    try:
        return Config(**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{where}: {first_lines(str(error))}") from None


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Return the keys of a YAML file."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a device may never end, a pipe never begin
            raise ValueError("not a regular file")
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES:,} bytes")
        mapping = yaml.load(content.decode(), _Loader)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    except (yaml.YAMLError, UnicodeDecodeError, OverflowError) as error:
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(error).split()))
        raise ValueError(f"{path} is not YAML: {text}") from None
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    if not isinstance(mapping, dict | None):
        raise ValueError(f"{path}: expected 'key: value' lines, got {type(mapping).__name__}")
    return {str(key): value for key, value in (mapping or {}).items()}


def read_yaml(path: str | Path) -> Sections:
    """Return the sections of a YAML file."""
    return normalise(read_mapping(path), path)


def load_yaml(path: str | Path) -> Config:
    return build_config(read_yaml(path), path)


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the one in C, if it was built, is ten times as fast


def dump_yaml(config: Config) -> str:
    return yaml.dump(config.model_dump(mode="json"), Dumper=_DUMPER, sort_keys=False)
