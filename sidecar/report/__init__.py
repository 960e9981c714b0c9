"""What the relay says: records on stdout, Prometheus text, rows of live flows.

Owns: nothing itself; this is the door. records and writer are the log, prometheus the metrics' syntax, flows the table.
Never here: a decision, a payload, anything that can block the main thread.
"""

from sidecar.report.prometheus import Family, Labels, Sample, exposition, histogram_samples
from sidecar.report.records import Fields, Report

__all__ = ["Family", "Fields", "Labels", "Report", "Sample", "exposition", "histogram_samples"]
