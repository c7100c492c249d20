"""Evaluate networks: accuracy, the transformer left out, pose, weights from other programs, pictures of a run."""
