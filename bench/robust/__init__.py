"""Trials of what is promised about files, one kind a module; `python -m bench robustness` runs and counts them."""
