"""The roles: least privilege, with a reason for each rule."""

import yaml

from controller.api.registry import KINDS, Program
from controller.install.rbac import role_files

FILES = role_files()
ROLES = {role["metadata"]["name"]: role for text in FILES.values() for role in yaml.safe_load_all(text)}
READ = {"get", "list", "watch"}


def rights(role):
    """Every right of a role: what it lets one do with which resource, `verb resource.group`."""
    return {
        f"{verb} {resource}.{group}".rstrip(".")
        for rule in ROLES[role]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def writes(role):
    return {right for right in rights(role) if right.split()[0] not in READ}


def test_a_file_for_each_program():
    assert set(FILES) == {f"{program}.yaml" for program in Program}
    assert list(ROLES) == [
        "beamlit-controller",
        "beamlit-controller-home",
        "beamlit-controller-takeover",
        "beamlit-xds-server",
        "beamlit-xds-server-home",
    ]
    assert {role["kind"] for role in ROLES.values()} == {"ClusterRole"}


def test_every_grant_is_in_the_role_of_its_program_and_nothing_else_is():
    granted = {role: set() for role in ROLES}
    for kind in KINDS.values():
        for grant in kind.grants:
            part = "-home" if grant.at_home else "-takeover" if grant.for_takeover else ""
            role = f"beamlit-{grant.program}{part}"
            resource = f"{kind.plural}/{grant.subresource}" if grant.subresource else kind.plural
            granted[role] |= {f"{verb} {resource}.{kind.group}".rstrip(".") for verb in grant.verbs}
    assert {role: rights(role) for role in ROLES} == granted


def test_the_controller_writes_statuses_and_events_and_its_lease_alone():
    assert writes("beamlit-controller") == {
        "patch modeldeployments/status.deployment.beamlit.com",
        "update modeldeployments/status.deployment.beamlit.com",
        "create events.events.k8s.io",
        "patch events.events.k8s.io",
    }
    assert writes("beamlit-controller-home") == {
        "create leases.coordination.k8s.io",
        "update leases.coordination.k8s.io",
    }


def test_what_takes_over_services_is_a_role_of_its_own_and_writes_no_spec_of_a_model():
    assert rights("beamlit-controller-takeover") == {
        "patch modeldeployments.deployment.beamlit.com",
        *(f"{verb} services" for verb in ("create", "patch", "delete")),
        *(f"{verb} endpointslices.discovery.k8s.io" for verb in ("create", "patch", "delete")),
    }


def test_the_xds_server_only_reads_and_it_alone_reads_secrets():
    assert writes("beamlit-xds-server") == set()
    assert [role for role in ROLES if any(right.endswith(" secrets") for right in rights(role))] == [
        "beamlit-xds-server"
    ]


def test_no_right_is_for_everything_but_to_read_metrics_whose_names_users_choose():
    assert {right for role in ROLES for right in rights(role) if "*" in right} == {
        "get *.custom.metrics.k8s.io",
        "list *.external.metrics.k8s.io",
    }


def test_every_rule_says_why_in_a_sentence():
    for text in FILES.values():
        before = ""
        for line in text.splitlines():
            if line.startswith("  - apiGroups:"):
                assert before.startswith("  # ")
                assert before.endswith(".")
            before = line
