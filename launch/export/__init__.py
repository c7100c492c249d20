"""The export of run directories to other trackers and files: read `seeds.py`, then `command.py`.

Each `to_*.py` writes seeds to one of them and imports its package when it is called. What has been exported is found
again by signature and seed, so that the command can be repeated.
"""
