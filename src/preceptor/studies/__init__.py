"""Outcomes of published studies as data, and what any outcomes say of teachers.

`tables` holds the nine tables of Xu et al. (NAACL 2025) as printed; `findings` turns what the paper claims
into cases that hold or not; `outcome_findings` does the same for any table of student, teacher and score.
"""

from preceptor.studies.finding import Case, Finding
from preceptor.studies.findings import (
    NOT_CHECKABLE,
    family_performance,
    findings,
    size_comparisons,
)
from preceptor.studies.outcomes import SizeComparison, outcome_findings
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
    defined_average,
    families,
    metric_correlations,
    table,
)

__all__ = [
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
    "BenchmarkRow",
    "Case",
    "Correlation",
    "Finding",
    "Generator",
    "Setting",
    "SizeComparison",
    "Summary",
    "average_performance",
    "defined_average",
    "families",
    "family_performance",
    "findings",
    "mean_correlations",
    "metric_correlations",
    "outcome_findings",
    "size_comparisons",
    "table",
]
