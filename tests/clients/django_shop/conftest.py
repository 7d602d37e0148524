"""The shop's modules belong to the shop's own process."""

collect_ignore_glob = ["*.py"]
