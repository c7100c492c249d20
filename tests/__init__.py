"""Tests by what they need: unit, models, training (whole runs), sweeps, report, cluster (a Slurm) and gpu.

What several of them share lies in ``support``; no test module imports another. Start with ``unit/test_structure.py``.
"""
