"""Experiments after the fact: effects, policies and who can be persuaded, from the log of closed sessions."""
