"""The console: a web page that the service itself delivers, at `/console`.

The page (`serving.console.shell`) holds no data and is open as far as the gate allows. What it shows it asks the API
for, with a secret key, or without one where none is needed and the request comes from this machine
(`serving.access`).
"""
