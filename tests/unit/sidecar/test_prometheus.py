"""sidecar.report.prometheus: text that Prometheus reads, as its own parser says."""

from prometheus_client.parser import text_string_to_metric_families

from sidecar.report import Family, Sample, exposition, histogram_samples


def test_the_parser_reads_what_was_meant() -> None:
    """A scrape would fail as a whole, or a value would be another one."""
    text = exposition(
        [
            Family(
                "a_total", "counter", 'help with \\ and\nnewline "quoted"', [Sample(3, [("x", 'a"b\\c\nd')]), Sample(2**60)]
            ),
            Family("b", "gauge", "b", [Sample(0.25)]),
            Family("c_seconds", "histogram", "c", histogram_samples((0.5, 2.0), (1, 3, 4), 7.5, [("x", "y")])),
            Family("d_total", "counter", "nothing yet", []),
        ]
    )
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["a"].documentation == 'help with \\ and\nnewline "quoted"'
    assert [(sample.labels, sample.value) for sample in families["a"].samples] == [
        ({"x": 'a"b\\c\nd'}, 3.0),
        ({}, float(2**60)),
    ]
    assert families["b"].samples[0].value == 0.25
    assert [(sample.name, sample.labels, sample.value) for sample in families["c_seconds"].samples] == [
        ("c_seconds_bucket", {"x": "y", "le": "0.5"}, 1.0),
        ("c_seconds_bucket", {"x": "y", "le": "2"}, 3.0),
        ("c_seconds_bucket", {"x": "y", "le": "+Inf"}, 4.0),
        ("c_seconds_sum", {"x": "y"}, 7.5),
        ("c_seconds_count", {"x": "y"}, 4.0),
    ]
    assert families["d"].type == "counter"
    assert f" {2**60}\n" in text
