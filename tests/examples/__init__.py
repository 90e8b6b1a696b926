"""What CONTRIBUTING's walks copy: whole files, held to `make lint` here and tried by `test_walks.py`."""
