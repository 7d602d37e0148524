"""Journeys: which ways sessions take, where they end, and what tells those that end early from those that stay.

In: sessions that are over, from a history or from what a service handed on (`sessions`). Out: counts, exact over all
of them (`paths`, `funnels`, `endings`, `dwell`, `returning`), what differs between two groups (`cohorts`), and all of
it as one document in which no small group is told (`report`).
"""
