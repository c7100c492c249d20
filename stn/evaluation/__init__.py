"""Evaluate networks: accuracy, with and without the transformer, pose measures, and weights from other programs."""
