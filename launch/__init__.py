"""Everything outside of runs: starting processes. Never imports torch."""
