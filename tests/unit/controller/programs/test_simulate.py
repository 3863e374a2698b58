"""`beamlit simulate`: history through the same decision, and mistakes told with their line."""

import json
from datetime import timedelta

import pytest
from click.testing import CliRunner

from controller.cli.main import main
from controller.programs.simulation.history import SimulationError, columns_of, read_history, read_model
from controller.programs.simulation.replay import MOST_DECISIONS, replay
from controller.programs.simulation.shown import as_object, as_plot, as_table, summary

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


LIMITED = MODEL.replace("mode: MODE", "maxRequestsPerReplica: 8")
EXTERNAL = "    - {type: External, external: {metric: {name: q}, target: {type: Value, value: 1}}}"
TWICE = MODEL.replace("MODE", "Threshold").replace("    metrics:\n", f"    metrics:\n{EXTERNAL}\n{EXTERNAL}\n")


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


def lines_of(seconds):
    """Twelve requests in flight at a replica that bears eight, for 200 s, then four; as many requests a second."""
    rows = (f"{at},{12 if at < 200 else 4},{(12 if at < 200 else 4) * seconds}" for at in range(0, 300, seconds))
    return "time,Requests,local_requests\n" + "\n".join(rows)


def test_lines_of_a_second_decide_as_lines_of_five_do():
    """Requests are counted over ten seconds, as the controller counts them, however many lines that is."""
    metric = "- {type: Requests, requests: {target: {type: AverageValue, averageValue: 8}}}"
    text = MODEL.replace("percentage: 50", "percentage: 100").replace("MODE", "Threshold")
    cpu = next(line.strip() for line in MODEL.splitlines() if "cpu" in line)
    intent = read_model("m.yaml", text.replace(cpu, metric))
    fine, coarse = (tuple(replay(intent, read_history("h", lines_of(each), ["Requests"]))) for each in (1, 5))
    assert told(fine) == told(coarse) == ["0/100", "10/90", "100/0"]
    began, ended = (next(one.at for one in fine if one.decision.split.remote == share) for share in (90, 0))
    assert began.timestamp() >= 200 and ended.timestamp() >= 260


def test_what_has_no_room_leaves_beside_the_split():
    intent = read_model("m.yaml", LIMITED)
    metrics, optional = columns_of(intent)
    history = "time,cpu,Requests\n0,10,4\n60,10,16\n120,10,4\n180,10,4\n"
    moments = tuple(replay(intent, read_history("h.csv", history, metrics, optional)))
    assert [one.overflow for one in moments] == [0, 50, 0, 0]
    assert "50 % of all requests leave for want of room" in as_table(moments)
    assert as_table(moments).endswith("requests away for 0:01:00, 16.67 % of the time's requests on average, "
                                      "16.67 % for want of room (maxRequestsPerReplica).")  # fmt: skip
    unknown = tuple(replay(intent, read_history("h.csv", "time,cpu\n0,10\n60,10\n", metrics, optional)))
    assert "What leaves by maxRequestsPerReplica is not in it" in as_table(unknown)


def test_a_limit_alone_is_simulated_by_what_is_in_flight():
    cpu = next(line for line in MODEL.splitlines() if "cpu" in line)
    intent = read_model("m.yaml", LIMITED.replace(cpu, "").replace("    metrics:\n", ""))
    moments = tuple(replay(intent, read_history("h.csv", "time,Requests\n0,32\n60,32\n", *columns_of(intent))))
    assert [one.overflow for one in moments] == [75, 75]


def test_what_is_an_average_is_one_of_what_stayed_and_is_waited_for():
    """Half of its window after half of the requests left, it is three quarters of what it was."""
    history = "time,cpu\n" + "\n".join(f"{at},{120 if at < 30 else 20}" for at in range(0, 300, 15))
    at_once = simulated(history=history)
    intent = read_model("model.yaml", MODEL.replace("MODE", "Threshold"))
    window = timedelta(seconds=60)
    late = tuple(replay(intent, read_history("h.csv", history, ["cpu"]), window))
    returned = [
        next(one.at.timestamp() for one in each if one.decision.reason == "CoolingDown") for each in (at_once, late)
    ]
    assert returned == [30, 60]


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
        ("time,cpu\n253402300790,1\n", "h.csv:2: time: must be"),
        ("time,cpu\n-1,1\n", "h.csv:2: time: must be"),
        ("time,cpu,ready\n0,1,0.5\n", "h.csv:2: ready: must be a whole number of replicas, is '0.5'"),
        (f"time,cpu\n0,{'1' * 200_000}\n", "h.csv:2: cannot be read: field larger than"),
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
        (TWICE, "m.yaml:3: spec.offloadingConfig.metrics: has 'q' twice"),
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


def test_what_is_left_out_between_two_lines_is_told():
    """A recovery of an hour in steps of a second is 3600 decisions: lines of an hour leave most of them out."""
    slow = read_model("m.yaml", MODEL.replace("MODE", "Threshold, recoverAfter: 1h"))

    def played(seconds):
        rows = "".join(f"{at},10,{int(at > 0)}\n" for at in range(0, 7201, seconds))
        return tuple(replay(slow, read_history("h.csv", f"time,cpu,ready\n{rows}", *columns_of(slow))))

    sparse, dense = played(3600), played(600)
    assert summary(sparse)["secondsLeftOut"] == 3600 - MOST_DECISIONS
    assert "Not simulated: 0:43:20 of it. Between two lines 1000 decisions" in as_table(sparse)
    assert "Not simulated: 0:43:20" in as_plot(sparse)
    assert as_object(sparse)["summary"]["secondsLeftOut"] == 2600
    assert as_object(dense)["summary"]["secondsLeftOut"] == 0
    assert "Not simulated" not in as_table(dense)


def test_a_plot_of_one_moment_is_one_row():
    assert as_plot(simulated(history="time,cpu\n0,40\n")).count("2026") == 0
    assert as_plot(simulated(history="time,cpu\n0,40\n")).count("1970") == 1
