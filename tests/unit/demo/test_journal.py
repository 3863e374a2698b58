"""What a server had in flight can be read, also when it was killed."""

from contextlib import closing

from demo.journal import Journal, end_journal, read_journal


def test_nobody_has_begun(tmp_path):
    assert read_journal(tmp_path / "a") == ()


def test_what_is_in_flight(tmp_path):
    path = tmp_path / "a"
    with closing(Journal(path)) as journal, journal.one_more(), journal.one_more():
        pass
    steps = read_journal(path)
    assert [step.number for step in steps] == [0, 1, 2, 1, 0]
    assert list(steps) == sorted(steps, key=lambda step: step.at)


def test_a_server_that_was_killed_has_nothing(tmp_path):
    path = tmp_path / "a"
    with closing(Journal(path)) as journal, journal.one_more():
        before = read_journal(path)[-1]
        end_journal(path, before.at + 1)
        assert [step.number for step in read_journal(path)] == [0, 1, 0]
    with closing(Journal(path)):
        assert read_journal(path)[-1].number == 0
