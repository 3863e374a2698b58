"""What the benchmark of the shared port judges."""

from benchmarks.hosts import OWN_PORTS, SCOPED_ROUTES, Figures, verdicts


def judged(few: float, scoped: float, own: float, megabytes: float) -> list[bool]:
    figures = {
        (SCOPED_ROUTES, 10): Figures(few, 0, 0),
        (SCOPED_ROUTES, 1000): Figures(scoped, int(megabytes * 1e9), 0),
        (OWN_PORTS, 1000): Figures(own, 0, 0),
    }
    return [good for good, _ in verdicts(figures, 1000)]


def test_each_goal_is_missed_by_itself() -> None:
    assert judged(1, 2, 1, 0.1) == [True, True, True]
    assert judged(1, 2.1, 2, 0.1) == [False, True, True]
    assert judged(2, 2.1, 1, 0.1) == [True, False, True]
    assert judged(1, 2, 1, 0.11) == [True, True, False]
