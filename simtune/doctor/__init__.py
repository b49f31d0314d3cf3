"""`simtune doctor`: what is wrong with a store, a registry or an installation; how to mend it."""

from simtune.doctor.examination import CHECKS, diagnose
from simtune.doctor.finding import CODES, Finding, Report
from simtune.doctor.subject import Subject

__all__ = ["CHECKS", "CODES", "Finding", "Report", "Subject", "diagnose"]
