"""A training step, recorded once and replayed."""
