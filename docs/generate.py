"""Pages that are made from the code and the collected rows while the manual is built (a hook of MkDocs)."""

import ast
import inspect
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import reproduction_tables

import stn
from stn.config import registry, schema
from stn.config.yaml_files import RECIPES, SHORT

LAUNCH = ("sweep", "status", "retry", "report", "wandb-sync", "export")
COMMANDS = ("evaluate", "show", "export")


def table(headings: list[str], rows: list[list[Any]]) -> str:
    def line(cells: list[Any]) -> str:
        return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(headings), line(["---"] * len(headings)), *map(line, rows)])


def field_texts(section: type) -> dict[str, str]:
    """Return the text below each field of a section."""
    (node,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(node, ast.ClassDef)
    texts = {}
    for item, following in pairwise(node.body):
        if isinstance(item, ast.AnnAssign) and isinstance(following, ast.Expr):
            texts[ast.unparse(item.target)] = " ".join(ast.literal_eval(following.value).split())
    return texts


def configuration() -> str:
    """Return every field of a configuration, with its flags and default."""
    short = {place: name for name, place in SHORT.items()}
    parts = [
        "# Configuration",
        "Values come from `--config FILE` first, then from the command line. In YAML the short names stand at the top "
        "level (`lr: 0.01`), the others in their section (`optim: {momentum: 0.9}`). Durations carry their unit: "
        "`2 epochs`, `500 steps`, `20 %` of the run. This page is generated from the fields in `stn/config`.",
    ]
    for section, field in schema.Config.model_fields.items():
        owner: Any = field.annotation
        rows, texts = [], field_texts(owner)
        for name, own in owner.model_fields.items():
            flags = [f"`--{section}.{name.replace('_', '-')}`"]
            if (section, name) in short:
                flags.insert(0, f"**`--{short[section, name].replace('_', '-')}`**")
            default = own.get_default(call_default_factory=True)
            rows.append([", ".join(flags), f"`{default}`", texts.get(name, "")])
        parts += [f"## {section}", (owner.__doc__ or "").strip(), table(["flag", "default", "meaning"], rows)]
    return "\n\n".join(parts) + "\n"


def commands() -> str:
    """Return the help text of every command but train.py, whose flags are the configuration."""
    parts = [
        "# Commands",
        "The flags of `train.py` and `python -m launch train` are the [configuration](configuration.md). "
        "Installed, `python -m stn` is `stn` and `python -m launch` is `stn-launch`.",
    ]
    for module, names in (("launch", LAUNCH), ("stn", COMMANDS)):
        for name in names:
            words = [sys.executable, "-m", module, name, "--help"]
            env = {"COLUMNS": "100", "PATH": "/usr/bin:/bin", "TERM": "dumb", "NO_COLOR": "1"}
            done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
            parts += [f"## python -m {module} {name}", f"```text\n{done.stdout.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def library() -> str:
    """Return the signatures and docstrings of what ``import stn`` has."""
    parts = ["# Python", "What `import stn` has; [how to use it](../how-to/python.md)."]
    public = {"stn.load": stn.load, "stn.results": stn.results, "stn.metrics": stn.metrics, "stn.Run": stn.Run}
    members = {name: own for name, own in vars(stn.Run).items() if not name.startswith("_")}
    for name, own in (public | {f"Run.{name}": own for name, own in members.items()}).items():
        function = getattr(own, "fget", None) or getattr(own, "func", None) or own
        called = str(inspect.signature(own)).replace("self, ", "").replace("(self)", "()") if callable(own) else ""
        parts += [f"## {name}", f"```python\n{name}{called}\n```", f"```text\n{inspect.getdoc(function)}\n```"]
    return "\n\n".join(parts) + "\n"


def names(kind: str) -> str:
    """Return a table of what can be picked, with its options."""
    rows = []
    for name, entry in registry.entries[kind].items():
        options = ", ".join(f"`{key}={value}`" for key, value in entry.options.items())
        rows.append([f"`{name}`", entry.line, *([options] if kind == "arch" else [])])
    return table(["name", "what it is", *(["options and defaults"] if kind == "arch" else [])], rows)


def recipes() -> str:
    """Return the header of every recipe and sweep."""
    parts = ["# Recipes and sweeps", (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").strip()]
    for title, folder in (("Recipes", RECIPES), ("Sweeps", RECIPES / "sweeps")):
        parts.append(f"## {title}")
        for path in sorted(folder.glob("*.yaml")):
            lines = path.read_text(encoding="utf-8").splitlines()
            header = [
                line[1:].removeprefix(" ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")]
            ]
            parts += [f"### {path.stem}", f"```text\n{chr(10).join(header)}\n```"]
    return "\n\n".join(parts) + "\n"


def fill(page: str, **sections: str) -> str:
    """Return a page of docs/ with its {name} marks filled in."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for name, content in sections.items():
        text = text.replace(f"<!-- {name} -->", content)
    return text


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = {
        "reference/configuration.md": configuration(),
        "reference/commands.md": commands(),
        "reference/python.md": library(),
        "reference/architectures.md": fill("architectures.md", archs=names("arch"), nets=names("net")),
        "reference/datasets.md": fill("datasets.md", datasets=names("dataset")),
        "reference/recipes.md": recipes(),
        "results.md": fill("results.md", reproduction=reproduction_tables.table(), poses=reproduction_tables.poses()),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files
