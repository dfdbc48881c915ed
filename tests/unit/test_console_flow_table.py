"""The live table of `hub up --watch`: rates, quantiles and what stands where."""

from console.flow_table import SERVICES, Snapshot, draw, fit, quantile, rate

TARGET = (("target", "TotvsProtheus"),)


def snapshot(at: float, **values: float) -> Snapshot:
    named: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {(name, ()): value for name, value in values.items()}
    return Snapshot(at=at, values=named, answering=frozenset(SERVICES))


def histogram(at: float, counts: dict[str, float]) -> Snapshot:
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {
        ("x_ms_bucket", (("le", limit),)): count for limit, count in counts.items()
    }
    return Snapshot(at=at, values=values, answering=frozenset())


def test_a_rate_is_the_rise_over_the_time() -> None:
    assert rate(snapshot(10, c_total=5), snapshot(20, c_total=65), "c_total") == 6


def test_a_counter_that_began_anew_counts_from_there() -> None:
    assert rate(snapshot(10, c_total=1000), snapshot(20, c_total=20), "c_total") == 2


def test_a_quantile_lies_within_its_bucket() -> None:
    before = histogram(0, {"10.0": 5, "50.0": 5, "+Inf": 5})
    now = histogram(10, {"10.0": 55, "50.0": 105, "+Inf": 105})

    # 100 observed: 50 up to 10 ms, 50 up to 50 ms; the 95th is 45/50 of the way from 10 to 50
    assert quantile(0.95, before, now, "x_ms") == 46


def test_a_quantile_beyond_the_last_limit_is_that_limit() -> None:
    assert quantile(0.5, histogram(0, {}), histogram(1, {"10.0": 0, "+Inf": 3}), "x_ms") == 10


def test_there_is_no_quantile_of_nothing() -> None:
    same = histogram(0, {"10.0": 5, "+Inf": 5})

    assert quantile(0.5, same, same, "x_ms") is None
    assert quantile(0.5, same, snapshot(1), "x_ms") is None


def test_the_table_shows_services_rates_stages_and_targets() -> None:
    before = Snapshot(at=0, values={}, answering=frozenset(SERVICES))
    values = {
        ("integration_requests_received_total", ()): 100.0,
        ("integration_requests_waiting", TARGET): 7.0,
        ("integration_requests_oldest_waiting_seconds", TARGET): 300.0,
        ("target_breaker_state", TARGET): 2.0,
        ("target_in_flight", TARGET): 3.0,
        ("target_concurrency_limit", TARGET): 8.0,
        ("dead_letters_open", TARGET): 2.0,
        ("events_publish_lag_ms_bucket", (("le", "10.0"),)): 40.0,
        ("events_publish_lag_ms_bucket", (("le", "+Inf"),)): 40.0,
        ("outbox_lag_seconds", ()): 0.0,
    }
    now = Snapshot(at=10, values=values, answering=frozenset({"gateway", "intake", "orchestrator"}))

    lines = [" ".join(line.split()) for line in draw(before, now)]

    assert lines[0] == "SERVICE gateway intake orchestrator adapter"
    assert lines[1] == "up up up DOWN"
    assert "accepted 10.0" in lines
    assert "publish 0.0 5.0 ms 9.5 ms 10.0 ms" in lines
    assert "TotvsProtheus OPEN 3 of 8 7 5 min 2 0.0 0.0" in lines


def test_the_table_of_two_targets_fits_an_ordinary_terminal() -> None:
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {
        ("integration_requests_waiting", (("target", name),)): 1_000_000.0 for name in ("OrdersApi", "TotvsProtheus")
    }
    now = Snapshot(at=10, values=values, answering=frozenset(SERVICES))

    lines = draw(Snapshot(at=0, values={}, answering=frozenset()), now)

    assert fit(lines, columns=80, rows=24) == lines


def test_what_does_not_fit_is_left_out_and_the_top_stays() -> None:
    lines = ["SERVICE gateway", "up", "TARGET", "Erp"]

    assert fit(lines, columns=7, rows=4) == ["SERVICE", "up", "... (2 more lines)"[:7]]
    assert fit(lines, columns=40, rows=5) == lines
