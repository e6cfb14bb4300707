"""The fixture cases, one module for each family; `make_fixtures.py` runs them."""
