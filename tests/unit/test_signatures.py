"""A signature is a contract: earlier results are looked up by it. These were recorded at 883d5f3."""

import json
from pathlib import Path

from launch.sweep.expand import expand
from stn.config import registry
from stn.config.resolve import resolve, signature, validate
from stn.config.yaml_files import RECIPES, build_config, overlay, read_yaml

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "signatures.json").read_text())


def test_recipes_keep_their_signatures_on_every_architecture() -> None:
    found = {}
    for path in sorted(RECIPES.glob("*.yaml")):
        for arch in registry.entries["arch"]:
            try:
                config = build_config(overlay(read_yaml(path), {"arch": {"name": arch}}), path)
                validate(config)
                found[f"{path.stem} {arch}"] = signature(resolve(config))
            except ValueError:  # an architecture that this recipe's network or options do not fit
                continue
    assert GOLDEN["recipes"].items() <= found.items()


def test_sweeps_keep_the_ids_of_their_jobs() -> None:
    for name, ids in GOLDEN["jobs"].items():
        assert [job.id for job in expand(name, "nowhere").plan.jobs] == ids, name
