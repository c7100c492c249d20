"""Training spatial-transformer networks, many seeds at a time."""

__version__ = "0.1.0"
