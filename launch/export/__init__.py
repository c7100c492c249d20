"""The export of run directories to other trackers and files: read `seeds.py`, then `command.py`.

Each `to_*.py` writes seeds to one target and imports that target's package when it is called. A seed that was exported
before is found by its signature and seed, so that the command can be repeated.
"""
