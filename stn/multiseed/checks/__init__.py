"""Checks of a network before it trains: many seeds as one, and one seed by itself.

Read ``equivalence.py`` first. Imports stn.multiseed.
"""
