"""Auditing: what is wrong with a data set, and what tells its labels without the anatomy."""
