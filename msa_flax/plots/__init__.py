"""Plots: every figure, and every chart of a report, is drawn here, once."""
