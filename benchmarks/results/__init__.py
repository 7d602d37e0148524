"""Reference results: Lotse's models beside others, on the same rows of public logs and of the simulated shop."""
