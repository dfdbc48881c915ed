"""What one request makes a process do is what came in between two readings, for each request."""

import os
import time

from bench.processes import cpu_seconds, thread_seconds
from bench.profile import Standing, profile


def test_a_profile_is_the_growth_between_two_readings_for_each_request() -> None:
    before = Standing(
        threads={"intake, first thread": (1.0, 0.5)},
        counts={"intake: batches, commit": 10.0, "intake: log lines": 7.0},
        items={"intake: batches, commit": 100.0},
    )
    after = Standing(
        threads={"intake, first thread": (1.5, 0.6), "intake, other threads": (0.2, 0.0)},
        counts={"intake: batches, commit": 30.0, "intake: log lines": 7.0, "valkey: commands, xadd": 5_000.0},
        items={"intake: batches, commit": 900.0},
    )

    counted = profile(before, after, 1_000)

    rounded = {name: (round(user), round(kernel)) for name, (user, kernel) in counted.threads.items()}
    assert rounded == {"intake, first thread": (500, 100), "intake, other threads": (200, 0)}  # 0.5 s, 0.1 s and 0.2 s
    assert counted.counts == {"intake: batches, commit": 0.02, "valkey: commands, xadd": 5.0}  # no line was added
    assert counted.items == {"intake: batches, commit": 40.0}  # 800 items in 20 batches
    assert counted.needed("intake: batches, commit") == 0.8
    assert counted.needed("valkey: commands, xadd") == 5.0


def test_lines_are_not_told_when_a_file_with_some_of_them_was_dropped() -> None:
    before, dropped, kept = (
        Standing(threads={}, counts={"intake: log lines": lines}, items={}, files={"intake: log lines": begins})
        for lines, begins in ((90.0, {b"first"}), (80.0, {b"second", b"third"}), (190.0, {b"first", b"second"}))
    )

    assert profile(before, dropped, 100).counts == {}
    assert profile(before, kept, 100).counts == {"intake: log lines": 1.0}


def test_the_threads_of_a_process_have_all_of_its_time() -> None:
    deadline = time.process_time() + 0.05
    while time.process_time() < deadline:
        pass

    before = cpu_seconds(os.getpid())
    threads = dict(thread_seconds(os.getpid()))
    after = cpu_seconds(os.getpid())

    assert threads["first thread"] > (0.0, 0.0)
    # ended threads count for the process alone; each of the four figures is cut to a hundredth of a second
    assert sum(map(sum, threads.values())) <= after + 0.04
    assert before <= after
