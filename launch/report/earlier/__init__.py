"""Compares a report with an earlier one, or with earlier rows: what got better, and what got worse."""
