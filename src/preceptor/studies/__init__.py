"""The paper's nine tables as data, what they say, and where they disagree with themselves.

The one idea: everything here is a fact of Xu et al. (NAACL 2025) as printed, or exact arithmetic on such
facts. `tables` holds them, `checks` recomputes what can be, `errata` lists what does not agree, `findings`
turns claims into cases that hold or not.
"""

from preceptor.studies.checks import Agreement, Check, checks, faults
from preceptor.studies.claims import Case, Finding
from preceptor.studies.errata import ERRATA, Erratum
from preceptor.studies.findings import (
    NOT_CHECKABLE,
    family_performance,
    findings,
)
from preceptor.studies.paradox import SizeComparison, size_comparisons
from preceptor.studies.predictions import mean_correlations
from preceptor.studies.tables import (
    STUDENTS,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    TABLE_8_DEVIATION,
    TABLE_8_MEAN,
    TABLE_8_VARIATION,
    TABLE_9,
    TITLES,
    BenchmarkRow,
    Correlation,
    Generator,
    Setting,
    Summary,
    average_performance,
    families,
    metric_correlations,
    table,
)

__all__ = [
    "ERRATA",
    "NOT_CHECKABLE",
    "STUDENTS",
    "TABLE_1",
    "TABLE_2",
    "TABLE_3",
    "TABLE_4",
    "TABLE_5",
    "TABLE_6",
    "TABLE_7",
    "TABLE_8",
    "TABLE_8_DEVIATION",
    "TABLE_8_MEAN",
    "TABLE_8_VARIATION",
    "TABLE_9",
    "TITLES",
    "Agreement",
    "BenchmarkRow",
    "Case",
    "Check",
    "Correlation",
    "Erratum",
    "Finding",
    "Generator",
    "Setting",
    "SizeComparison",
    "Summary",
    "average_performance",
    "checks",
    "families",
    "family_performance",
    "faults",
    "findings",
    "mean_correlations",
    "metric_correlations",
    "size_comparisons",
    "table",
]
