"""Thin entry points: train, evaluate, show and export a finished run, check and list; and how a run ends.

Each module has a ``main`` or is called by train.py. Read ``evaluate.py`` first. Imports every other package of stn.
"""
