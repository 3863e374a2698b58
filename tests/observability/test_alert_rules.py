"""Each alert of deploy/observability/rules.yaml fires for its cause, after its time and for nothing else (promtool).

A case is an hour of a cluster in which everything is well, but for one thing that breaks after ten minutes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.processes import ROOT
from tests.tools import binaries

RULES = ROOT / "deploy" / "observability" / "rules.yaml"
BREAKS = 10
"""The minute of the last sample with which all is well."""

CHAT = 'namespace="team",name="chat"'
LLAMA = 'namespace="team",name="llama"'
OF_REQUESTS = "beamlit_gateway_requests_total"
OF_TRIES = "beamlit_model_requests_total"


def healthy(namespace: str, server: str) -> str:
    """What an xDS server says of a remote backend to a namespace."""
    where = f'backend="backend/{namespace}",namespace="{namespace}",host="a.example:443"'
    return f'beamlit_remote_healthy{{{where},instance="{server}"}}'


WELL: Mapping[str, str] = {
    **{
        f'{OF_REQUESTS}{{{model},code="{code}",instance="envoy-{number}"}}': values
        for model in (CHAT, LLAMA)
        for number in (0, 1)
        for code, values in {"2xx": "0+600x60", "4xx": "0+6x60", "5xx": "0+1x60"}.items()
    },
    **{
        f'{OF_TRIES}{{{model},side="{side}",outcome="{outcome}",instance="xds-{number}"}}': values
        for model in (CHAT, LLAMA)
        for side in ("local", "remote")
        for number in (0, 1)
        for outcome, values in {"succeeded": "0+300x60", "failed": "0+3x60"}.items()
    },
    **{
        f"{metric}{{{model}}}": values
        for model in (CHAT, LLAMA)
        for metric, values in {
            "beamlit_model_ready": "1x60",
            "beamlit_model_replicas_ready": "3x60",
            "beamlit_model_signals_unknown": "0x60",
        }.items()
    },
    **{
        f'beamlit_model_split_ratio{{{model},side="{side}"}}': value
        for model in (CHAT, LLAMA)
        for side, value in {"local": "1x60", "remote": "0x60"}.items()
    },
    **{
        f'beamlit_model_condition{{{model},type="{type_}"}}': value
        for model in (CHAT, LLAMA)
        for type_, value in {"FailingOver": "0x60", "Offloading": "1x60", "RemoteHealthy": "1x60"}.items()
    },
    'beamlit_build_info{program="xds-server",instance="xds-0"}': "1x60",
    'beamlit_build_info{program="controller",instance="controller-0"}': "1x60",
    'beamlit_leader{instance="controller-0"}': "1x60",
    'beamlit_leader{instance="controller-1"}': "0x60",
    healthy("team", "xds-0"): "1x60",
    healthy("team", "xds-1"): "1x60",
    'beamlit_xds_envoys_connected{instance="xds-0"}': "2x60",
    'beamlit_xds_envoys_connected{instance="xds-1"}': "0x60",
    'beamlit_xds_envoys_programmed{instance="xds-0"}': "2x60",
    'beamlit_xds_envoys_programmed{instance="xds-1"}': "0x60",
    'beamlit_xds_envoys_silent{instance="xds-0"}': "0x60",
    'beamlit_xds_envoys_silent{instance="xds-1"}': "0x60",
    'beamlit_reconcile_errors_total{step="plan"}': "0x60",
    'beamlit_reconcile_errors_total{step="write"}': "0x60",
    'beamlit_directory_problems{instance="run"}': "0x60",
    # The clock of promtool begins at zero: 90 days.
    'beamlit_certificate_start_timestamp_seconds{option="--tls-cert",instance="xds-0"}': "0x60",
    'beamlit_certificate_expiry_timestamp_seconds{option="--tls-cert",instance="xds-0"}': "7776000x60",
}


@dataclass(frozen=True)
class Case:
    """What breaks, and the alerts that fire for it.

    `waits` is how many minutes after the break they do not fire yet, `fires` after how many they do.
    """

    series: Mapping[str, str]
    alerts: tuple[Mapping[str, str], ...]
    fires: int = 15
    waits: int = 0
    gone: tuple[str, ...] = field(default=())
    """Series that are not there at all."""


def then(before: str, after: str) -> str:
    """One value until it breaks, another one afterwards."""
    return f"{before}x{BREAKS} {after}x{59 - BREAKS}"


def alert(alertname: str, severity: str, /, **labels: str) -> Mapping[str, str]:
    return {"alertname": alertname, "alertstate": "firing", "severity": severity} | labels


def of_chat(alertname: str, severity: str) -> Mapping[str, str]:
    return alert(alertname, severity, namespace="team", name="chat")


CASES = {
    "all is well": Case({}, (), fires=45),
    "one answer in thirty is an error": Case(
        {f'{OF_REQUESTS}{{{CHAT},code="5xx",instance="envoy-1"}}': "0x10 0+40x49"},
        (of_chat("BeamlitRequestsFail", "critical"),),
        waits=1,
    ),
    "one answer in 150 is an error": Case(
        {f'{OF_REQUESTS}{{{CHAT},code="5xx",instance="envoy-1"}}': "0x10 0+6x49"}, ()
    ),
    "no side answers": Case(
        {
            f"beamlit_model_ready{{{CHAT}}}": then("1", "0"),
            f"beamlit_model_replicas_ready{{{CHAT}}}": then("3", "0"),
        },
        (of_chat("BeamlitNothingAnswers", "critical"),),
        fires=3,
        waits=1,
    ),
    "the replicas are gone and the remote backend serves": Case(
        {f"beamlit_model_replicas_ready{{{CHAT}}}": then("3", "0")}, ()
    ),
    "Envoy fails over": Case(
        {f'beamlit_model_condition{{{CHAT},type="FailingOver"}}': then("0", "1")},
        (of_chat("BeamlitFailingOver", "warning"),),
        fires=7,
        waits=5,
    ),
    "Envoy fails over for a moment": Case(
        {f'beamlit_model_condition{{{CHAT},type="FailingOver"}}': "0x10 1x3 0x45"}, ()
    ),
    "one side fails a tenth of what it is asked": Case(
        {f'{OF_TRIES}{{{CHAT},side="remote",outcome="failed",instance="xds-1"}}': "0x10 0+70x49"},
        (alert("BeamlitSideFails", "warning", namespace="team", name="chat", side="remote"),),
        waits=5,
    ),
    "one side fails one in thirty": Case(
        {f'{OF_TRIES}{{{CHAT},side="remote",outcome="failed",instance="xds-1"}}': "0x10 0+20x49"}, ()
    ),
    "one side fails half of the few that it is asked": Case(
        {
            f'{OF_TRIES}{{{CHAT},side="remote",outcome="{outcome}",instance="xds-{number}"}}': f"0+{2 * number}x60"
            for outcome in ("succeeded", "failed")
            for number in (0, 1)
        },
        (),
        fires=25,
    ),
    "a remote backend is down": Case(
        {healthy("team", server): then("1", "0") for server in ("xds-0", "xds-1")},
        (alert("BeamlitRemoteDown", "warning", namespace="team", host="a.example:443"),),
        fires=7,
        waits=5,
    ),
    "a remote backend fails whatever it is asked, and is tried again each five minutes": Case(
        {healthy("team", server): "1x10 " + "0x4 1 " * 9 for server in ("xds-0", "xds-1")},
        (alert("BeamlitRemoteDown", "warning", namespace="team", host="a.example:443"),),
        fires=12,
        waits=5,
    ),
    "a remote backend fails all requests of one of two namespaces": Case(
        {healthy("next", "xds-0"): then("1", "0")},
        (alert("BeamlitRemoteDown", "warning", namespace="next", host="a.example:443"),),
        fires=7,
        waits=5,
    ),
    "one xDS server does not reach a remote backend": Case({healthy("team", "xds-1"): then("1", "0")}, ()),
    "a model is not served as it asks to be": Case(
        {f"beamlit_model_ready{{{CHAT}}}": then("1", "0")},
        (of_chat("BeamlitModelNotReady", "warning"),),
        waits=10,
    ),
    "an object cannot be read": Case(
        {'beamlit_model_ready{namespace="team",name="new"}': "0x60"},
        (alert("BeamlitModelNotReady", "warning", namespace="team", name="new"),),
    ),
    "the Service of a new model is nowhere": Case(
        {
            'beamlit_model_ready{namespace="team",name="new"}': "0x60",
            'beamlit_model_replicas_ready{namespace="team",name="new"}': "0x60",
        },
        (alert("BeamlitModelNotReady", "warning", namespace="team", name="new"),),
    ),
    "a metric is not known": Case(
        {f"beamlit_model_signals_unknown{{{CHAT}}}": then("0", "1")},
        (of_chat("BeamlitSignalsUnknown", "warning"),),
        waits=10,
    ),
    "there is nothing to measure while no replica is ready": Case(
        {
            f"beamlit_model_signals_unknown{{{CHAT}}}": then("0", "1"),
            f"beamlit_model_replicas_ready{{{CHAT}}}": then("3", "0"),
        },
        (),
    ),
    "clients of a Service are not led to the gateway": Case(
        {f'beamlit_model_not_fronted{{{CHAT},reason="NotPermitted"}}': f"_x{BREAKS + 1} 1x48"},
        (of_chat("BeamlitNotFronted", "warning"),),
        waits=10,
    ),
    "what keeps them from it is now this and now that": Case(
        {
            f'beamlit_model_not_fronted{{{CHAT},reason="Pending"}}': f"_x{BREAKS + 1} {'1 stale ' * 24}",
            f'beamlit_model_not_fronted{{{CHAT},reason="GatewayNotReady"}}': f"_x{BREAKS + 1} {'stale 1 ' * 24}",
        },
        (of_chat("BeamlitNotFronted", "warning"),),
        waits=10,
    ),
    "a takeover takes a few minutes": Case(
        {f'beamlit_model_not_fronted{{{CHAT},reason="Pending"}}': f"_x{BREAKS + 1} 1x5 stale"}, ()
    ),
    "there is no gateway to take a Service over for": Case(
        {f'beamlit_model_not_fronted{{{CHAT},reason="NoGateway"}}': f"_x{BREAKS + 1} 1x48"}, ()
    ),
    "a file has a mistake": Case(
        {'beamlit_directory_problems{instance="run"}': then("0", "2")},
        (alert("BeamlitFolderMistakes", "warning", instance="run"),),
        fires=7,
        waits=5,
    ),
    "no controller leads": Case(
        {'beamlit_leader{instance="controller-0"}': then("1", "0")},
        (alert("BeamlitNobodyDecides", "critical"),),
        fires=4,
        waits=2,
    ),
    "there is no controller": Case(
        {},
        (alert("BeamlitNobodyDecides", "critical"),),
        gone=tuple(f'beamlit_leader{{instance="controller-{number}"}}' for number in (0, 1)),
    ),
    "another controller leads": Case(
        {
            'beamlit_leader{instance="controller-0"}': then("1", "0"),
            'beamlit_leader{instance="controller-1"}': "0x12 1x47",
        },
        (),
    ),
    "beamlit run has no controller of its own": Case(
        {'beamlit_build_info{program="run",instance="run"}': "1x60"},
        (),
        gone=(
            'beamlit_build_info{program="xds-server",instance="xds-0"}',
            *(f'beamlit_leader{{instance="controller-{number}"}}' for number in (0, 1)),
        ),
    ),
    "no Envoy is connected": Case(
        {
            'beamlit_xds_envoys_connected{instance="xds-0"}': then("2", "0"),
            'beamlit_xds_envoys_programmed{instance="xds-0"}': then("2", "0"),
        },
        (alert("BeamlitNoEnvoy", "critical"),),
        fires=4,
        waits=2,
    ),
    "the Envoys went to another xDS server": Case(
        {
            f'beamlit_xds_envoys_{what}{{instance="xds-{number}"}}': then(*values)
            for what in ("connected", "programmed")
            for number, values in {0: ("2", "0"), 1: ("0", "2")}.items()
        },
        (),
    ),
    "an Envoy does not acknowledge": Case(
        {'beamlit_xds_envoys_programmed{instance="xds-0"}': then("2", "1")},
        (alert("BeamlitEnvoysBehind", "warning"),),
        fires=7,
        waits=5,
    ),
    "an Envoy reports no load": Case(
        {'beamlit_xds_envoys_silent{instance="xds-0"}': then("0", "1")},
        (alert("BeamlitEnvoysSilent", "warning"),),
        fires=7,
        waits=5,
    ),
    "an Envoy that reports no load goes to another xDS server": Case(
        {
            'beamlit_xds_envoys_silent{instance="xds-0"}': "0x10 1x3 0x45",
            'beamlit_xds_envoys_silent{instance="xds-1"}': "0x14 1x45",
        },
        (alert("BeamlitEnvoysSilent", "warning"),),
        fires=7,
        waits=5,
    ),
    "Envoys come one after the other, and have not reported yet": Case(
        {'beamlit_xds_envoys_silent{instance="xds-0"}': "0x10 1x3 0x1 1x3 0x1 1x3 0x35"}, ()
    ),
    "a kind cannot be read": Case(
        {'beamlit_store_unreadable_kinds{kind="Service",instance="controller-0"}': f"_x{BREAKS + 1} 1x48"},
        (alert("BeamlitStoreTrouble", "warning", kind="Service"),),
        fires=4,
        waits=2,
    ),
    "a list is not believed": Case(
        {'beamlit_store_suspect_lists{kind="Service",instance="xds-0"}': f"_x{BREAKS + 1} 1x48"},
        (alert("BeamlitStoreTrouble", "warning", kind="Service"),),
        fires=4,
        waits=2,
    ),
    "statuses cannot be written": Case(
        {'beamlit_reconcile_errors_total{step="write"}': "0x10 0+1x49"},
        (alert("BeamlitReconcileErrors", "warning", step="write"),),
        fires=20,
        waits=9,
    ),
    "one status could not be written": Case(
        {'beamlit_reconcile_errors_total{step="write"}': "0x10 1x49"}, (), fires=25
    ),
    "a tenth of a certificate's life is left": Case(
        {
            'beamlit_certificate_start_timestamp_seconds{option="--xds-cert",instance="controller-0"}': "-36000x60",
            'beamlit_certificate_expiry_timestamp_seconds{option="--xds-cert",instance="controller-0"}': "4000x60",
        },
        (alert("BeamlitCertificateEnds", "warning", option="--xds-cert", instance="controller-0"),),
        fires=20,
    ),
}


def document(case: Case) -> dict[str, Any]:
    """The case as promtool takes it."""
    series = {name: values for name, values in {**WELL, **case.series}.items() if name not in case.gone}
    look = 'ALERTS{alertstate="firing"}'
    expected = [
        {"labels": f"ALERTS{{{','.join(f'{name}={json.dumps(value)}' for name, value in one.items())}}}", "value": 1}
        for one in case.alerts
    ]
    looks = [{"expr": look, "eval_time": f"{BREAKS + case.fires}m", "exp_samples": expected}]
    if case.waits:
        looks.append({"expr": look, "eval_time": f"{BREAKS + case.waits}m", "exp_samples": []})
    return {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": looks,
            }
        ],
    }


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_for_its_cause_and_for_nothing_else(name: str, tmp_path: Path) -> None:
    file = tmp_path / "case.yaml"
    file.write_text(json.dumps(document(CASES[name])))  # JSON is YAML
    ended = subprocess.run([binaries.promtool(), "test", "rules", file], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_has_a_case() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = {rule["alert"] for group in groups for rule in group["rules"]}
    assert {one["alertname"] for case in CASES.values() for one in case.alerts} == rules
