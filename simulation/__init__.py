"""A simulated shop whose visitors' true probabilities are known: input for the demo, truth for the tests."""
