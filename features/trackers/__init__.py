"""What trackers say in our words, one module a tool: its vocabulary and its rules, for its history and live alike.

The reader of a tool's history (`features.sources`) and the service's adapter for its requests use the same module, so
that a session has the same features in training and when it is scored. No tables here: a service starts without pandas.
"""
