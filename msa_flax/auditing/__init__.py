"""Auditing: what is wrong with a data set, and what predicts its labels without the anatomy."""
