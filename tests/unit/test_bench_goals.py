"""The benchmark's verdicts, tables and picture, from figures made up here."""

from xml.etree import ElementTree as ET

import pytest

from bench.chart import draw
from bench.comparison import Comparison
from bench.figures import HUB_ON_POSTGRES, HUB_ON_SQLITE, Crash, Figures, Flat, Idle, Steady
from bench.goals import Goal, judge
from bench.limits import Limit
from bench.report import BEGIN, END, insert, is_sound, tables


def flat(completions: float, *, accepts: float = 0.0, received: int = 100, cpu_us: float = 500.0) -> Flat:
    return Flat(
        accepts_per_second=accepts or completions,
        completions_per_second=completions,
        cpu_us={"gateway": cpu_us - 50, "valkey": 50, "postgres": 999},
        accepted=100,
        completed=100,
        received=received,
        repeated=0,
        refused=0,
        load_share=0.1,
        endpoint_share=0.1,
        others_share=0.01,
    )


def competitor(name: str, layout: str, completions: float, *, is_durable: bool = True, accepts: float = 0.0) -> Figures:
    flats = {delay: [flat(completions * times, accepts=accepts) for times in (0.5, 1, 2)] for delay in (0, 50)}
    return Figures(name=name, layout=layout, is_durable=is_durable, flat=flats)


def everyone(*, hub: float = 2_400.0, sqlite: float = 2_500.0, accepts: float = 0.0) -> list[Figures]:
    return [
        competitor(HUB_ON_POSTGRES, "hub", hub, accepts=accepts),
        competitor(HUB_ON_SQLITE, "hub", sqlite),
        competitor("Procrastinate, tuned", "tuned", 800),
        competitor("FastStream, tuned", "tuned", 2_000, is_durable=False, accepts=1_000),
        competitor("FastStream, batched", "batched", 3_000, is_durable=False, accepts=4_000),
    ]


def goal_of(figures: list[Figures], words: str) -> Goal:
    return next(goal for goal in judge(figures) if words in goal.goal)


@pytest.mark.parametrize(
    ("hub", "words", "held"),
    [
        (2_400, "0 ms, PostgreSQL: >= 3 x the best durable", True),  # 3 x 800
        (2_399, "0 ms, PostgreSQL: >= 3 x the best durable", False),
        (2_000, "50 ms, PostgreSQL: >= the fastest peer", True),
        (1_999, "50 ms, PostgreSQL: >= the fastest peer", False),
        (2_999, "0 ms, PostgreSQL: >= the fastest with batching", False),
        (3_000, "0 ms, PostgreSQL: >= the fastest with batching", True),
    ],
)
def test_the_hub_is_held_against_the_right_peer(hub: float, words: str, held: bool) -> None:
    assert goal_of(everyone(hub=hub), words).held is held


def test_accepts_are_held_against_twice_the_best_as_offered_and_as_written() -> None:
    figures = everyone(accepts=2_000)

    assert goal_of(figures, "2 x the best peer").held is True
    assert goal_of(figures, "2 x the best with batching").held is False


def test_sqlite_is_held_against_postgres() -> None:
    assert goal_of(everyone(), "external 0 ms: SQLite no less").held is True
    assert goal_of(everyone(sqlite=2_399), "external 0 ms: SQLite no less").held is False


def test_cpu_counts_the_hubs_own_processes_and_not_postgres() -> None:
    goal = goal_of(everyone(), f"{HUB_ON_POSTGRES}: CPU per request")

    assert (goal.figure, goal.held) == ("500 us, of it Valkey 50", True)


def test_latency_is_judged_by_what_a_reader_of_the_events_sees() -> None:
    figures = everyone()
    figures[0].low = [Steady(per_second=50, p50=5, p95=9, p99=20, missing=0, seen=(9, 12, 25))]

    assert goal_of(figures, f"{HUB_ON_POSTGRES}: 202 to Completed").held is False


def test_idle_is_the_sum_of_all_hub_processes() -> None:
    figures = everyone()
    figures[0].idle = [Idle(cpu_percent={"intake": 2.0, "valkey": 1.5}, memory_mb={"intake": 200, "gateway": 100})]

    assert goal_of(figures, f"{HUB_ON_POSTGRES}: idle <= 3 %").held is False
    assert goal_of(figures, f"{HUB_ON_POSTGRES}: idle <= 300 MB").held is True


@pytest.mark.parametrize(("missing", "held"), [(0, True), (1, False)])
def test_one_missing_request_breaks_the_goal(missing: int, held: bool) -> None:
    figures = everyone()
    figures[0].crash = Crash(accepted=500, missing=missing, repeated=3, seconds_until_all_ended=9.0)

    assert goal_of(figures, f"{HUB_ON_POSTGRES}: requests missing").held is held


def test_what_was_not_measured_is_not_called_held() -> None:
    blank = [Figures(name=HUB_ON_POSTGRES, layout="hub", is_durable=True)]

    assert {goal.held for goal in judge(blank)} == {None}


def test_a_run_whose_counts_differ_is_not_sound() -> None:
    figures = everyone()
    comparison = Comparison(servers="PostgreSQL", figures=figures, limits=[])
    assert is_sound(comparison)

    figures[2].flat[0].append(flat(800, received=99))

    assert not is_sound(comparison)
    assert "| NO " in tables(comparison)


def test_the_tables_name_every_competitor_and_limit() -> None:
    limit = Limit(stage="HTTP client", per_second=12_000, how="64 at once")

    text = tables(Comparison(servers="PostgreSQL", figures=everyone(), limits=[limit]))

    assert all(f"| {each.name} " in text for each in everyone())
    assert "1,200 / 2,400 / 4,800" in text
    assert "| HTTP client | 12,000     | 20 %, 20 %" in text


def test_the_ratios_are_those_of_the_medians() -> None:
    text = tables(Comparison(servers="PostgreSQL", figures=everyone(), limits=[]))

    line = next(line for line in text.partition("How many times each peer")[2].splitlines() if "FastStream, t" in line)
    # accepts, completions at 0 ms and at 50 ms: 2,400 and then 2,500 to 1,000, 2,000 and 2,000
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["2.40", "1.20", "1.20", "2.50", "1.25", "1.25"]


def test_figures_replace_those_of_the_run_before() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"

    assert insert(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="the page has no"):
        insert("a page without marks", "new")


def test_the_picture_is_well_formed_and_shows_every_competitor() -> None:
    picture = ET.fromstring(draw(everyone(), machine="a <machine>"))  # noqa: S314 - our own text

    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {each.name for each in everyone()} <= set(texts)
    assert "2,400" in texts
