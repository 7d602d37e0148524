"""`{% load lotse %}`."""
