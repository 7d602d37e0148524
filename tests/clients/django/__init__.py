"""lotse-django in a shop that runs, with a service that runs, or does not."""
