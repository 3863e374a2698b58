"""What the benchmark of the shared port judges."""

from benchmarks.hosts import OWN_PORTS, SCOPED_ROUTES, Figures, verdicts


def judged(few: float, scoped: float, own: float, megabytes: float) -> list[bool]:
    figures = {
        (SCOPED_ROUTES, 10): Figures(0, changes=[few]),
        (SCOPED_ROUTES, 1000): Figures(int(megabytes * 1e9), changes=[scoped]),
        (OWN_PORTS, 1000): Figures(0, changes=[own]),
    }
    return [good for good, _ in verdicts(figures, 1000)]


def test_each_goal_is_missed_by_itself() -> None:
    assert judged(1, 2, 1, 0.1) == [True, True, True]
    assert judged(1, 2.1, 2, 0.1) == [False, True, True]
    assert judged(2, 2.1, 1, 0.1) == [True, False, True]
    assert judged(1, 2, 1, 0.11) == [True, True, False]


def test_a_round_that_was_disturbed_counts_once() -> None:
    disturbed, other = Figures(0, changes=[2, 90, 2]), Figures(0, changes=[1, 45, 20])
    assert disturbed.ratio_to(other) == 2
