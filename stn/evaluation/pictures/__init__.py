"""PNGs of a run, or of a network with given weights. Read ``draw.py`` first."""
