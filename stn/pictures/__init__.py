"""PNGs of a run, drawn from its directory alone, or of a network with given weights.

Read ``draw.py`` first. ``subject.py`` has the geometry under the pictures, ``warps.py`` and ``scores.py`` draw
them. Imports stn.evaluation and what is below it.
"""
