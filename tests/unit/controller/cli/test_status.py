"""What `beamlit status` shows."""

import http.server
import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from controller.cli.status import NO_ANSWER, NOT_FOUND, age, row, show, table
from tests.support.objects import a_model

NOW = datetime(2026, 1, 1, 0, 5, tzinfo=UTC)
STATUS = {
    "conditions": [{"type": "Accepted", "status": "True"}, {"type": "Ready", "status": "False"}],
    "local": {"ready": 2, "total": 3},
    "servingPort": 10000,
    "reason": "Recovering",
    "split": {"local": 80, "remote": 20, "reason": "Recovering"},
}
MODEL = {**a_model("llama").stored(status=STATUS).raw}


def test_a_row():
    assert row(MODEL, NOW) == ("default", "llama", "llama", "False", "10000", "2/3", "80/20", "Recovering", "5m")


def test_a_row_of_a_model_that_nobody_looked_at_yet():
    assert row(a_model("llama").stored().raw, NOW)[3:] == ("Unknown", "<none>", "<none>", "<none>", "<none>", "5m")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (121, "2m1s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (48 * 3600 - 1, "47h"),
        (48 * 3600, "2d"),
        (400 * 86400, "400d"),
    ],
)
def test_an_age(seconds, words):
    assert age(timedelta(seconds=seconds)) == words


def test_a_table_is_aligned_and_has_no_trailing_spaces():
    assert table([("NAME", "AGE"), ("a", "10s"), ("longer", "")]) == "NAME     AGE\na        10s\nlonger\n"


@contextmanager
def answering(body, code=200):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def report(*models, problems=()):
    return json.dumps({"items": models, "problems": list(problems)}).encode()


def test_it_shows_a_table(capsys):
    with answering(report(MODEL)) as server:
        assert show(server, None, "table") == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["NAMESPACE", "NAME", "MODEL", "READY", "PORT", "LOCAL", "SPLIT", "REASON", "AGE"]
    assert line.split()[:8] == ["default", "llama", "llama", "False", "10000", "2/3", "80/20", "Recovering"]


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_it_shows_whole_objects(capsys, output, read):
    with answering(report(MODEL)) as server:
        assert show(f"{server}/", ("default", "llama"), output) == 0
    (shown,) = read(capsys.readouterr().out)
    assert shown["metadata"]["name"] == "llama"
    assert shown["status"] == STATUS


def test_one_that_is_not_there(capsys):
    with answering(report(MODEL)) as server:
        assert show(server, ("other", "llama"), "table") == NOT_FOUND
    assert capsys.readouterr().err == "beamlit: there is no ModelDeployment other/llama\n"


def test_problems_go_to_standard_error(capsys):
    with answering(report(problems=["a.yaml:3: spec.model: is required"])) as server:
        assert show(server, None, "json") == 0
    assert capsys.readouterr() == ("[]\n", "beamlit: a.yaml:3: spec.model: is required\n")


def test_no_terminal_obeys_what_somebody_wrote(capsys):
    """Who wrote a file chose its keys and its name, and who wrote an object chose some of the words in a row."""
    escape = "\x1b[2J"
    model = {**MODEL, "spec": {**MODEL["spec"], "model": f"llama{escape}"}}
    with answering(report(model, problems=[f'a{escape}.yaml:3: spec."x{escape}\u202e": is not known'])) as server:
        assert show(server, None, "table") == 0
        assert show(f"{server}/{escape}", None, "table") == NO_ANSWER
    out, err = capsys.readouterr()
    assert (out + err).replace("\n", "").isprintable()
    assert "llama\\x1b[2J" in out
    assert err.startswith('beamlit: a\\x1b[2J.yaml:3: spec."x\\x1b[2J\\u202e": is not known\n')


@pytest.mark.parametrize(
    ("body", "code"), [(b"not json", 200), (b"[]", 200), (b'{"items": []}', 200), (b'"text"', 200), (b"{}", 500)]
)
def test_whoever_answers_otherwise_is_not_beamlit(capsys, body, code):
    with answering(body, code) as server:
        assert show(server, None, "table") == NO_ANSWER
    assert f"beamlit: {server} does not answer as `beamlit run` does" in capsys.readouterr().err


@pytest.mark.parametrize("server", ["http://127.0.0.1:1", "nonsense", "http://[", ""])
def test_nobody_answers(capsys, server):
    assert show(server, None, "table") == NO_ANSWER
    assert "does not answer as `beamlit run` does" in capsys.readouterr().err
