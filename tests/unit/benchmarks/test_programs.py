"""benchmarks.programs: what the programs print, as they printed it once, comes to the right figures."""

import json

import pytest

from benchmarks.programs import COUNT_A_SECOND, PAIRS, read_iperf3, read_redis, read_wrk
from benchmarks.workloads import WORKLOADS

WRK = """\
Running 1s test @ http://127.0.0.1:7010/small
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   330.29us  190.07us   2.41ms   71.15%
    Req/Sec    43.27k     4.41k   49.04k    60.00%
  Latency Distribution
     50%  304.00us
     75%  443.00us
     90%  549.00us
     99%    0.94ms
  43014 requests in 1.00s, 50.66MB read
Requests/sec:  42995.73
Transfer/sec:     50.64MB
"""
REDIS = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"GET","142857.14","0.142","0.032","0.143","0.215","0.295","0.879"
"""
IPERF3 = {
    "start": {"version": "iperf 3.12"},
    "end": {
        "sum_sent": {"seconds": 1.001032, "bytes": 3746037760, "bits_per_second": 29937406676.31005, "retransmits": 0},
        "sum_received": {"seconds": 1.00003, "bytes": 3736076288, "bits_per_second": 29887713672.589825},
    },
}


def test_wrk_is_read_as_it_wrote() -> None:
    """A page would be wrong by a thousand, for everybody alike."""
    assert read_wrk(WRK) == pytest.approx({"requests": 43014, "seconds": 43014 / 42995.73, "p50_us": 304.0, "p99_us": 940.0})
    slow = read_wrk(WRK.replace("304.00us", "1.10s"))
    assert slow["p50_us"] == pytest.approx(1_100_000)


@pytest.mark.parametrize("line", ["Socket errors: connect 0, read 7, write 0, timeout 0", "Non-2xx or 3xx responses: 45059"])
def test_requests_that_failed_are_no_requests(line: str) -> None:
    """A relay that breaks connections would look as fast as one that does not."""
    with pytest.raises(RuntimeError, match=line):
        read_wrk(WRK.replace("Requests/sec", f"  {line}\nRequests/sec"))


def test_what_wrk_did_not_write_is_missed() -> None:
    """A figure would be made of another version's words."""
    with pytest.raises(RuntimeError, match="99%"):
        read_wrk(WRK.replace("99%", "98%"))


def test_redis_benchmark_is_read_as_it_wrote() -> None:
    """A page would be wrong by a thousand, for everybody alike."""
    told = read_redis(REDIS, ["redis-benchmark", "-n", "20000", "--csv"])
    assert told == pytest.approx({"requests": 20_000, "seconds": 20_000 / 142857.14, "p50_us": 143.0, "p99_us": 295.0})


def test_iperf3_is_read_as_it_wrote() -> None:
    """What was sent and never arrived would count."""
    assert read_iperf3(json.dumps(IPERF3)) == {"bytes": 3736076288, "seconds": 1.00003}
    with pytest.raises(RuntimeError, match="the server has terminated"):
        read_iperf3(json.dumps({"end": {}, "error": "the server has terminated"}))


@pytest.mark.parametrize("name", [name for name, workload in WORKLOADS.items() if workload.program])
def test_a_command_is_bounded(name: str) -> None:
    """A program would run on after its turn."""
    workload = WORKLOADS[name]
    words = (*PAIRS[workload.program].ask, *workload.load, *PAIRS[workload.program].address)
    shown = [word.format(seconds=3, count=3 * COUNT_A_SECOND, host="HOST", port=1) for word in words]
    assert {"3s", "3", "60000", "600000"} & set(shown)
    assert not [word for word in shown if "{" in word]
