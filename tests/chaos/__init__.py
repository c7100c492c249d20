"""Faults injected into whole trainings: ``python -m tests.chaos`` prints what was injected and what survived."""
