from __future__ import annotations

from controller.check.report import CheckReport, Finding, Health, Topic, TopicFindings

API, MODELS = TopicFindings(Topic.API_SERVER), TopicFindings(Topic.MODELS)


def test_topics_stand_in_the_order_in_which_they_depend_on_each_other() -> None:
    report = CheckReport.of([MODELS.ok("ready", "1 model is ready"), API.ok("answers", "it answers")])
    assert report.as_text() == (
        "Kubernetes API\n  ok       it answers\n\nModels\n  ok       1 model is ready\n\n2 checks: 2 ok\n"
    )


def test_what_fails_says_what_to_do_and_what_is_not_seen_fails_nothing() -> None:
    report = CheckReport.of([API.unseen("clock", "it does not say the time"), API.ok("answers", "it answers")])
    assert (report.is_well, report.summary) == (True, "2 checks: 1 ok, 1 not seen")
    failing = CheckReport.of([*report.findings, MODELS.failed("ready", "a/b is not ready", "look at it")])
    assert (failing.is_well, failing.summary) == (False, "3 checks: 1 ok, 1 failed, 1 not seen")
    assert "  failed   a/b is not ready\n           do: look at it\n" in failing.as_text()
    assert failing.as_object()["result"] == "failed"
    assert failing.as_object()["findings"][-1] == {
        "check": "models/ready",
        "topic": "Models",
        "result": "failed",
        "message": "a/b is not ready",
        "remedy": "look at it",
    }


def test_a_mistake_that_all_models_make_is_not_written_a_thousand_times() -> None:
    failing = [MODELS.failed("ready", f"a/{number} is not ready") for number in range(1000)]
    text = CheckReport.of(failing).as_text()
    assert text.count("is not ready") == 20
    assert "and 980 more of ready (failed): -o json has all" in text
    assert len(CheckReport.of(failing).as_object()["findings"]) == 1000


def test_words_of_others_are_one_line_and_nothing_that_a_terminal_obeys() -> None:
    finding = Finding(Topic.MODELS, "ready", Health.FAILED, "red \x1b[31m\nand more", "a\rb")
    text = CheckReport((finding,)).as_text()
    assert "  failed   red \\x1b[31m and more\n           do: a b\n" in text
