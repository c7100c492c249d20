"""Packages of the distribution: those of the code, and stn.files with the files beside them (see pyproject.toml)."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["stn", "stn.*", "launch", "launch.*"]), "stn.files"],
    package_dir={"stn.files": "."},
    package_data={
        "launch": ["report/analysis/*.yaml", "report/output/assets/*"],
        "stn": ["py.typed", "data/mnist_xz/*.xz", "models/kernels/c/*"],
        "stn.files": ["configs/*.yaml", "configs/*/*.yaml", "slurm/*.sh"],  # and train.py, as a module
    },
    include_package_data=False,
)
