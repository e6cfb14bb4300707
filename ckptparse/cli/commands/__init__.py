"""One file for each command: what it asks of the public API, and how its answer looks."""
