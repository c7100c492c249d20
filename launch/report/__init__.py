"""Comparison reports: what is real between architectures, from result rows. Never imports torch."""
