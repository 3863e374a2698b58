"""`beamlit simulate`: history through the same decision, and mistakes told with their line."""

import json

import pytest
from click.testing import CliRunner

from controller.cli.main import main
from controller.programs.simulate import SimulationError, as_plot, read_history, read_model, replay

MODEL = """\
apiVersion: deployment.beamlit.com/v1alpha1
kind: ModelDeployment
metadata: {name: chat}
spec:
  model: chat
  modelSourceRef: {apiVersion: apps/v1, kind: Deployment, name: chat}
  serviceRef: {name: chat}
  offloadingConfig:
    behavior: {percentage: 50, restoreAfter: 60s, mode: MODE}
    metrics:
    - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}
    remoteBackend: {host: models.example.com}
"""
SURGE = "time,cpu\n" + "\n".join(f"{15 * step},{120 if 10 <= step < 40 else 40}" for step in range(60))


def simulated(mode="Threshold", history=SURGE):
    intent = read_model("model.yaml", MODEL.replace("MODE", mode))
    return tuple(replay(intent, read_history("h.csv", history, ["cpu"])))


def told(moments):
    splits = [str(one.decision.split) for one in moments]
    return [split for before, split in zip([None, *splits], splits, strict=False) if split != before]


def test_a_surge_is_one_change_at_each_end_as_what_leaves_lowers_what_is_measured():
    assert told(simulated()) == ["100/0", "50/50", "100/0"]


def test_what_returns_by_itself_returns_between_two_lines():
    sparse = "time,cpu,local_requests,remote_requests,ready\n0,120,100,0,2\n20,20,20,20,2\n500,30,100,0,2\n"
    moments = simulated(history=sparse)
    assert [(one.at.timestamp(), str(one.decision.split)) for one in moments] == [
        (0, "50/50"),
        (20, "50/50"),
        (80, "100/0"),
        (500, "100/0"),
    ]


def test_a_value_that_is_missing_is_unknown_and_holds():
    moments = simulated(history="time,cpu\n0,120\n15,\n30,120\n")
    assert [one.decision.reason for one in moments] == ["Overloaded", "SignalsUnknown", "Overloaded"]


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ("", "h.csv:1: has no column 'time'"),
        ("time\n0\n", "h.csv:1: has no column 'cpu'"),
        ("time,cpu,gpu\n", "h.csv:1: the column 'gpu' is unknown"),
        ("time,cpu,cpu\n", "h.csv:1: the column 'cpu' is unknown or there twice"),
        ("time,cpu\n", "h.csv:1: has no lines"),
        ("time,cpu\n0,1\n1,x\n", "h.csv:3: cpu: must be a number from 0 on, or empty if unknown, is 'x'"),
        ("time,cpu\n0,nan\n", "h.csv:2: cpu: must be a number"),
        ("time,cpu\n0,-1\n", "h.csv:2: cpu: must be a number"),
        ("time,cpu\n0,1e99\n", "h.csv:2: cpu: must be a number"),
        ("time,cpu\n0,1,2\n", "h.csv:2: has 3 values, and there are 2 columns"),
        ("time,cpu\nnoon,1\n", "h.csv:2: time: must be seconds, or a time"),
        ("time,cpu\n2026-01-01T00:00:00,1\n", "h.csv:2: time: must be"),
        ("time,cpu\nnan,1\n", "h.csv:2: time: must be"),
        ("time,cpu\n1e300,1\n", "h.csv:2: time: must be"),
        ("time,cpu\n5,1\n\n5,1\n", "h.csv:4: time: must be later than in the line before"),
    ],
)
def test_a_mistake_in_the_history_is_told_with_its_line(history, words):
    with pytest.raises(SimulationError) as error:
        read_history("h.csv", history, ["cpu"])
    assert str(error.value).startswith(words)


def test_a_mistake_in_the_manifest_is_told_with_its_line():
    for text, words in [
        (MODEL.replace("MODE", "Often"), "m.yaml:9: spec.offloadingConfig.behavior.mode: "),
        ("", "m.yaml:1: must have one ModelDeployment, has 0"),
        (MODEL.replace("MODE", "Threshold").replace("- {type", "# - {type"), "m.yaml:3: spec.offloadingConfig.metrics"),
    ]:
        with pytest.raises(SimulationError) as error:
            read_model("m.yaml", text)
        assert str(error.value).startswith(words)


def test_the_command_shows_each_form_and_takes_another_law(tmp_path):
    (tmp_path / "m.yaml").write_text(MODEL.replace("MODE", "Shadow"))
    (tmp_path / "h.csv").write_text(SURGE)

    def run(*more):
        files = ["-f", str(tmp_path / "m.yaml"), "--signal", str(tmp_path / "h.csv")]
        return CliRunner().invoke(main, ["simulate", *files, *more])

    assert "Overloaded      150%" in run().output
    known = json.loads(run("-o", "json").output)
    assert [one["split"] for one in known["changes"]] == ["100/0", "50/50", "50/50", "100/0"]
    assert known["summary"]["splitChanges"] == 2
    assert "63/37" not in run().output
    assert "/37" in run("--law", "Proportional").output
    assert "**********" in run("-o", "plot").output
    (tmp_path / "h.csv").write_bytes(b"time,cpu\n0,\xff\n")
    failed = run()
    assert failed.exit_code == 1
    assert f"{tmp_path / 'h.csv'}:2: is not UTF-8 text" in failed.output


def test_a_plot_of_one_moment_is_one_row():
    assert as_plot(simulated(history="time,cpu\n0,40\n")).count("2026") == 0
    assert as_plot(simulated(history="time,cpu\n0,40\n")).count("1970") == 1
