"""The benchmark's verdicts, tables and picture, from figures made up here."""

from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest

from bench.chart import draw
from bench.comparison import SIDE_BY_SIDE, Comparison, turns_of
from bench.figures import HUB_ON_POSTGRES, HUB_ON_SQLITE, Crash, Figures, Flat, Idle, Profile, Steady
from bench.goals import Goal, judge
from bench.limits import Limit
from bench.profile import ROOT
from bench.progress import seconds_left
from bench.report import BEGIN, END, insert, is_sound, page, tables
from bench.rivals import PEERS


def flat(
    completions: float, *, accepts: float = 0.0, received: int = 100, broken: int = 0, round_number: int = 0
) -> Flat:
    return Flat(
        accepts_per_second=accepts or completions,
        completions_per_second=completions,
        completions_under_load=completions / 2,
        cpu_us={"gateway": 450, "valkey": 50, "postgres": 999},
        accepted=100,
        completed=100,
        received=received,
        repeated=0,
        refused=0,
        broken=broken,
        load_share=0.1,
        endpoint_share=0.1,
        machine_shares={"gateway": 0.5, "postgres": 0.2, "load generator": 0.1, "other programs": 0.01},
        round_number=round_number,
        profile=Profile(
            threads={"gateway, first thread": (400, 50)},
            counts={"intake: batches, commit": 0.1, "gateway: log lines": 1.0},
            items={"intake: batches, commit": 40.0},
        ),
    )


def competitor(name: str, layout: str, completions: float, *, is_durable: bool = True, accepts: float = 0.0) -> Figures:
    flats = {
        delay: [
            flat(completions * times, accepts=accepts, round_number=number) for number, times in enumerate((0.5, 1, 2))
        ]
        for delay in (0, 50)
    }
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


def test_a_ratio_is_that_of_the_rounds_and_not_of_rates_from_different_rounds() -> None:
    hub, _, _, fast_stream, _ = everyone()
    for number, rates in enumerate([(1_000, 900), (1_200, 1_300), (2_000, 1_900)]):
        hub.flat[0][number], fast_stream.flat[0][number] = (flat(rate, round_number=number) for rate in rates)
    figures = [hub, fast_stream]

    goal = goal_of(figures, "external 0 ms, PostgreSQL: >= the fastest peer")

    assert (goal.held, goal.figure) == (True, "1,200 : 1,300 (FastStream, tuned), by round 1.05 x (0.92 to 1.11)")


def test_rounds_that_only_one_of_two_was_measured_in_say_nothing() -> None:
    figures = everyone()
    figures[0].flat[0] = [flat(2_400, round_number=7)]

    assert goal_of(figures, "external 0 ms, PostgreSQL: >= the fastest peer").held is None


def test_those_that_are_held_against_each_other_have_their_turns_side_by_side() -> None:
    figures = [Figures(name=peer.title, layout=peer.layout, is_durable=peer.is_durable) for peer in PEERS]
    figures += [Figures(name=name, layout="hub", is_durable=True) for name in (HUB_ON_POSTGRES, HUB_ON_SQLITE)]

    first, second = ([each.name for each in turns_of(figures, number)] for number in (0, 1))

    assert first[:5] == list(SIDE_BY_SIDE)
    assert sorted(first) == sorted(each.name for each in figures)
    assert second == first[::-1]


def test_sqlite_is_held_against_postgres() -> None:
    assert goal_of(everyone(), "external 0 ms: SQLite no less").held is True
    assert goal_of(everyone(sqlite=2_399), "external 0 ms: SQLite no less").held is False


def test_cpu_counts_the_hubs_own_processes_and_not_postgres() -> None:
    goal = goal_of(everyone(), f"{HUB_ON_POSTGRES}: CPU per request")

    assert (goal.figure, goal.held) == ("500 us, of it Valkey 50", True)


@pytest.mark.parametrize(("by_commit", "held"), [(True, True), (False, False)])
def test_latency_is_judged_by_the_commit_or_else_by_what_a_reader_of_the_events_sees(
    by_commit: bool, held: bool
) -> None:
    figures = everyone()
    low = Steady(per_second=50, p50=5, p95=9, p99=20, by_commit=by_commit, missing=0, seen=(9, 12, 25))
    figures[0].low = [low]

    assert goal_of(figures, f"{HUB_ON_POSTGRES}: 202 to Completed").held is held


def test_a_latency_without_those_whose_event_was_not_read_holds_no_goal() -> None:
    figures = everyone()
    figures[0].low = [Steady(per_second=50, p50=5, p95=9, p99=20, missing=0, unseen=1, seen=(6, 10, 20))]

    goal = goal_of(figures, f"{HUB_ON_POSTGRES}: 202 to Completed")

    assert (goal.held, goal.figure) == (False, "p50 6.0 ms, p95 10.0 ms (until its event was read); 1 lost")
    assert not is_sound(Comparison(servers="PostgreSQL", figures=figures))


def test_idle_is_the_sum_of_all_hub_processes() -> None:
    figures = everyone()
    figures[0].idle = [Idle(cpu_percent={"intake": 2.0, "valkey": 1.5}, memory_mb={"intake": 200, "gateway": 100})]

    assert goal_of(figures, f"{HUB_ON_POSTGRES}: idle <= 3 %").held is False
    assert goal_of(figures, f"{HUB_ON_POSTGRES}: idle <= 300 MB").held is True


@pytest.mark.parametrize(("missing", "held"), [(0, True), (1, False)])
def test_one_missing_request_breaks_the_goal(missing: int, held: bool) -> None:
    figures = everyone()
    figures[0].crashes = [
        Crash(accepted=500, missing=lost, repeated=3, seconds_until_all_ended=9.0) for lost in (missing, 0)
    ]

    assert goal_of(figures, f"{HUB_ON_POSTGRES}: requests missing").held is held


def test_what_was_not_measured_is_not_called_held() -> None:
    blank = [Figures(name=HUB_ON_POSTGRES, layout="hub", is_durable=True)]

    assert {goal.held for goal in judge(blank)} == {None}


@pytest.mark.parametrize(("received", "broken"), [(99, 0), (100, 1)])
def test_a_run_whose_counts_differ_or_whose_connections_broke_is_not_sound(received: int, broken: int) -> None:
    figures = everyone()
    comparison = Comparison(servers="PostgreSQL", figures=figures)
    assert is_sound(comparison)

    figures[2].flat[0].append(flat(800, received=received, broken=broken))

    assert not is_sound(comparison)
    assert "| NO " in tables(comparison)


@pytest.mark.parametrize("lost", ["missing", "unseen", "refused", "broken"])
def test_a_run_that_has_lost_a_request_at_a_fixed_rate_is_not_sound_and_shows_it(lost: str) -> None:
    figures = everyone()
    counts: dict[str, Any] = {"missing": 0, lost: 7_654}
    figures[2].half = [Steady(per_second=800, p50=5, p95=9, p99=20, accepted=12_345, seen=None, **counts)]
    comparison = Comparison(servers="PostgreSQL", figures=figures)

    counted = tables(comparison).partition("Counted at both ends")[2]

    assert not is_sound(comparison)
    assert f"{lost}, at fixed rates" in counted
    assert "| 12,345 " in counted
    assert "| 7,654 " in counted


def test_a_competitor_that_failed_is_reported_with_its_last_words() -> None:
    figures = everyone()
    figures[2] = Figures(name="Procrastinate, tuned", layout="tuned", is_durable=True)
    last_words = f'  File "{ROOT}/bench/peers/x.py", line 1\nNo module named procrastinate'
    figures[2].trouble = [f"round 1: Procrastinate, tuned does not start:\nfirst line\n{last_words}"]
    comparison = Comparison(servers="PostgreSQL", figures=figures)

    text = tables(comparison)

    assert not is_sound(comparison)
    assert "| Procrastinate, tuned | yes     | failed " in text
    assert "- Procrastinate, tuned, round 1: Procrastinate, tuned does not start:" in text
    assert '\n  File "bench/peers/x.py", line 1\nNo module named procrastinate\n```' in text  # wherever it was run


def test_a_run_that_ended_early_says_how_many_rounds_it_has() -> None:
    comparison = Comparison(figures=everyone(), rounds=3, finished_rounds=1, trouble=["interrupted"])

    assert "1 of 3 rounds are complete" in page(comparison)
    assert not is_sound(comparison)


def test_a_record_gives_the_same_page_again() -> None:
    comparison = Comparison(figures=everyone(), command="make bench", rounds=3, finished_rounds=3)

    again = msgspec.json.decode(msgspec.json.encode(comparison), type=Comparison)

    assert page(again) == page(comparison)


def test_a_goal_that_is_missed_points_to_what_stands_in_the_way() -> None:
    modules = {"gateway create": {"uuid": 152, "starlette": 434}}

    text = tables(Comparison(figures=everyone(hub=100), instructions=modules))

    assert "What stands in the way is below" in text
    assert "| hub on PostgreSQL    | 50 %          | 20 %       | 10 %           | 0 %             | 1 %" in text
    assert "| CPU of gateway, first thread | 400 + 50 us" in text
    assert "| intake: batches, commit      | 0.100, of 40.0 items" in text
    assert "| gateway create | 586          | starlette 434, uuid 152 |" in text


def test_the_tables_name_every_competitor_and_limit() -> None:
    limits = [
        Limit(stage="HTTP client", per_second=12_000, how="64 at once"),
        Limit(stage="group commit", per_second=96_000, how="64 to a commit", needed="intake: batches, commit"),
    ]

    text = tables(Comparison(servers="PostgreSQL", figures=everyone(), limits=limits))

    assert all(f"| {each.name} " in text for each in everyone())
    assert "1,200 / 2,400 / 4,800" in text
    assert "| HTTP client  | 12,000     | 2,400 x 1.0 = 20 %" in text
    assert "| group commit | 96,000     | 2,400 x 4.0 = 10 %" in text  # 0.1 commits of 40 items for each request


def test_the_ratios_are_those_of_each_round() -> None:
    figures = everyone()
    figures[3].flat[50] = [flat(1_000, round_number=0), flat(2_000, round_number=2)]  # it failed in the second round

    text = tables(Comparison(servers="PostgreSQL", figures=figures))

    line = next(line for line in text.partition("How many times each peer")[2].splitlines() if "FastStream, t" in line)
    # the hub's 1,200, 2,400 and 4,800 accepts to 1,000 in each; completions rise with the rounds on both sides
    ratios = [cell.strip() for cell in line.split("|")[2:5]]
    assert ratios == ["1.20 / 2.40 / 4.80", "1.20", "1.20 / 1.80 / 2.40"]


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


def test_the_time_left_is_reckoned_from_what_each_took_the_last_time() -> None:
    names = ["hub", "peer", "other"]

    assert seconds_left(names, {}, place=0, rounds_after=2) is None
    # two of this round, of 20 s and as long as the others' mean of 15 s; and one more round of all three
    assert seconds_left(names, {"hub": 10.0, "peer": 20.0}, place=1, rounds_after=1) == 20 + 15 + (10 + 20 + 15)
