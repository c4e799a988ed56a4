"""Reporting: one page about a run, made from what the run and its evaluation have saved."""

from msa_flax.reporting.artefacts import Artefacts, ReportError, read
from msa_flax.reporting.page import page

__all__ = ["Artefacts", "ReportError", "page", "read"]
