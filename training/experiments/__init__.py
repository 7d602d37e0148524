"""Experiments, judged: a table of units in, effects with intervals, checks and a report out."""
