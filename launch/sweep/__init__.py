"""Sweeps: a file expands to cells (settings) and jobs (blocks of seeds), which run here or on a scheduler.

Read README.md, then `commands.py`, which goes through a sweep from top to bottom.
"""
