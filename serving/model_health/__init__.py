"""How the models are, as MLflow knows it: what training and `lotse watch` left in registry and runs, as one document.

In: MLflow's client. Out: what `GET /v1/insight/models` answers. Nothing is measured here, and nothing is told of fewer
visitors than `insight.least_visitors`. What a run of an earlier release has not written is missing, and named.
"""
