"""Thin entry points: train, evaluate, show and export a finished run, check and list; how a run ends; ``import stn``.

Each module has a ``main`` or is called by train.py; ``library`` is what ``import stn`` has. Read ``evaluate.py`` first.
Imports every other package of stn.
"""
