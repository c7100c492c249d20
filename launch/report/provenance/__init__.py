"""Where the numbers of a report come from: signatures of tables, differing configurations, and warnings."""
