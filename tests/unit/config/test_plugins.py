"""Own code from outside: found, read without running it, its options typed; one clear line where it cannot be used."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stn.config import plugins, registry
from stn.config.command_line import parse
from stn.config.resolve import resolve, signature
from stn.config.yaml_files import dump_yaml, load_yaml
from tests.support.paths import ROOT
from tests.support.plugin import write_plugin
from tests.support.trainer import environment

Words = Callable[..., object]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with a plugin, in which we are; forget afterwards what was registered."""
    monkeypatch.setattr(registry, "entries", {kind: dict(entries) for kind, entries in registry.entries.items()})
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(write_plugin(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


def refusal(capsys: pytest.CaptureFixture, *words: str) -> str:
    with pytest.raises(SystemExit) as left:
        parse(list(words))
    assert left.value.code == 2
    return capsys.readouterr().err.removeprefix("error: ").strip()


def test_an_architecture_has_options_of_its_own_typed_from_its_signature(folder: Path) -> None:
    words = ["--plugin", "my_package.things", "--arch", "Aligned", "--arch.width", "16", "--arch.act=RELU"]
    (command,) = parse([*words, "--arch.sizes", "3,4"])
    assert command.arch.model_extra == {"width": 16, "act": "relu", "sizes": (3, 4)}
    config = resolve(command)
    assert config.arch.model_extra == {"width": 16, "act": "relu", "sizes": (3, 4)}
    assert config.train.plugins == ("my_package.things",)
    assert "my_package.things" not in sys.modules  # read, not run
    assert parse(["--plugin", "my_package", "--arch", "silent", "--arch.deep"])[0].arch.model_extra == {"deep": True}
    assert parse(["--plugin", "my_package", "--arch", "silent", "--arch.no-deep"])[0].arch.model_extra == {
        "deep": False
    }


def test_a_recipe_for_transformers_keeps_the_rate_of_a_localisation_net_that_we_do_not_know(folder: Path) -> None:
    ours, theirs = (
        resolve(parse(["--config", "best_mnist", "--plugin", "my_package.things", "--arch", arch])[0])
        for arch in ("stn_slx", "aligned")
    )
    assert theirs.optim.loc_lr_multiplier == ours.optim.loc_lr_multiplier == 0.1


def test_what_a_plugins_data_set_holds_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = parse(["--plugin", "my_package", "--dataset", "my-digits"])
    signatures = [signature(resolve(command))]
    entry = registry.find("dataset", "my_digits")
    known = entry.function()
    for content in ("one", "two", "one"):
        changed = dataclasses.replace(known, content=content)
        monkeypatch.setitem(registry.entries["dataset"], "my_digits", entry._replace(function=lambda c=changed: c))
        signatures.append(signature(resolve(command)))
    assert len(set(signatures)) == 3
    assert signatures[1] == signatures[3]


def test_the_configuration_of_a_run_brings_its_plugins(folder: Path) -> None:
    (command,) = parse(
        ["--plugin=my_package.things", "--arch", "aligned", "--arch.width", "16", "--dataset", "my-digits"]
    )
    config = resolve(command)
    (folder / "config.yaml").write_text(dump_yaml(config))
    registry.entries["arch"].pop("aligned")
    plugins._loaded.clear()
    assert load_yaml(folder / "config.yaml") == config


def test_own_options_count_in_the_signature_and_plugins_and_metrics_do_not(folder: Path) -> None:
    def sig(*words: str) -> str:
        return signature(resolve(parse(["--plugin", "my_package.things", *words])[0]))

    plain = signature(resolve(parse(["--arch", "cnn"])[0]))
    assert sig("--arch", "cnn") == plain == sig("--arch", "cnn", "--eval.metrics", "reach", "ece")
    wide = sig("--arch", "aligned", "--arch.width", "16")
    assert wide != sig("--arch", "aligned") == sig("--arch", "aligned", "--arch.width", "8")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("THINGS --arch aligned --arch.widht 3", "no flag --arch.widht; did you mean --arch.width?"),
        ("THINGS --arch aligned --arch.width x", "width: input should be a valid integer"),
        ("THINGS --arch aligned --arch.act sin", "act: input should be 'relu' or 'tanh' (got 'sin')"),
        ("THINGS --arch cnn --arch.width 3", "cnn has no option 'width'; it takes none"),
        ("THINGS --arch alinged", "no architecture 'alinged'; did you mean 'aligned'?"),
        ("THINGS --arch stn_c0 --arch.transform strech", "no transform 'strech'; did you mean 'stretch'?"),
        ("THINGS --eval.metrics reech", "no metric 'reech'; did you mean 'reach'?"),
        ("--arch aligned", "--plugin MODULE brings your own"),
        ("--plugin my_package.thing", "no plugin my_package.thing: Python finds no such module. Run in the folder"),
        ("--plugin my_package/things.py", "name a module, not a file: things"),
        ("--plugin 3things", "is not a module's name"),
        ("--plugin", "--plugin needs the name of a module"),
        ("--plugin json", "plugin json registers nothing; decorate its functions: @stn.register('arch')"),
    ],
)
def test_what_cannot_be_used_is_one_line(folder: Path, capsys: pytest.CaptureFixture, words: str, text: str) -> None:
    said = refusal(capsys, *words.replace("THINGS", "--plugin my_package.things").split())
    assert text in said
    assert "\n" not in said


ENTRY = "import stn\n@stn.register('{}')\ndef {}(make, shape, classes, *, n: int = {}):\n    {!r}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def (", "SyntaxError"),
        ("import nothing_like_this\n", "cannot be imported: ModuleNotFoundError"),
        (ENTRY.format("arch", "cnn", 1, "Again."), "'cnn' is registered twice, by stn.models.wirings and my_package"),
        (ENTRY.format("arhc", "f", 1, "One."), "nothing registers as 'arhc'; did you mean 'arch'?"),
        (ENTRY.format("arch", "f", 1, ""), "has no docstring"),
        (
            ENTRY.format("arch", "f", 1, "One.").replace("*, ", ""),
            "architecture 'f': write a * before n, since options",
        ),
    ],
)
def test_a_broken_plugin_is_one_line(folder: Path, capsys: pytest.CaptureFixture, text: str, said: str) -> None:
    cnn = registry.entries["arch"]["cnn"]  # not imported yet, as in a process that only reads the command line
    registry.entries["arch"]["cnn"] = cnn._replace(function=registry.LazyFunction("stn.models.wirings", "cnn"))
    (folder / "my_package" / "things.py").write_text(text)
    found = refusal(capsys, "--plugin", "my_package.things")
    assert said in found
    assert found.startswith("plugin my_package.things")
    assert "\n" not in found


def test_what_a_module_computes_is_imported(folder: Path) -> None:
    (folder / "my_package" / "things.py").write_text(ENTRY.format("arch", "f", "2 + len('ab')", "One."))
    (command,) = parse(["--plugin", "my_package.things", "--arch", "f"])
    assert resolve(command).arch.model_extra == {"n": 4}


def test_yaml_and_sweeps_name_plugins(folder: Path) -> None:
    from launch.sweep.expand import expand

    (folder / "s.yaml").write_text(
        "seeds: 0-1\nbase: {plugin: my_package.things, dataset: my_digits}\n"
        "grid: {arch: [aligned, cnn], arch.width: [4, 8]}\nexclude: [{arch: cnn, arch.width: 4}, {arch: cnn}]\n"
    )
    cells = expand(str(folder / "s.yaml"), str(folder / "runs")).cells
    assert [cell.config.arch.model_extra for cell in cells] == [
        {"width": width, "act": "tanh", "sizes": ()} for width in (4, 8)
    ]


def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """And recorded by the configurations that use it; a broken one costs a line, not the command."""
    write_plugin(tmp_path)
    for name, value in (("mine", "my_package.things"), ("broken", "not_there.at_all")):
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[stn.plugins]\n{name} = {value}\n")
        (info / "top_level.txt").write_text("my_package\n" if name == "mine" else "")
    code = (
        "import sys; from stn.config import resolve, command_line, plugins\n"
        "for arch in ('aligned', 'cnn'):\n"
        "    config = resolve.resolve(command_line.parse(['--arch', arch])[0])\n"
        "    print(config.train.plugins, 'torch' in sys.modules)\n"
        "print(plugins.provenance(['my_package.things'])['my_package.things']['version'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(PYTHONPATH=str(tmp_path)),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "('my_package.things',) False\n() False\n1.2\n"
    assert done.stderr.count("warning: an installed plugin is left out: no plugin not_there.at_all") == 1
