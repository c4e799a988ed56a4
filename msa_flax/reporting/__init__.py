"""Reporting: one page about a run, made from what the run and its evaluation have saved."""
