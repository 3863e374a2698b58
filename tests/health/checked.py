"""A backend to check, and what one check of it finds."""

from __future__ import annotations

from datetime import timedelta

from pydantic import SecretStr

from tests.support.checked_servers import PATIENT, Authority, Names, connector_by
from xds_server.health.backend import Address, Backend, TokenRequest, Trust
from xds_server.health.connection import Connector
from xds_server.health.outcome import CheckOutcome
from xds_server.health.probe import BackendProbe

NAME = "models.test"
LOOPBACK = Names(models__test="127.0.0.1")


def backend(port: int, path: str = "", trust: Trust | None = None, token: TokenRequest | None = None) -> Backend:
    patience = timedelta(seconds=PATIENT.longest)
    return Backend("backend/x", Address(NAME, port), f"{NAME}:{port}", trust, token, path, patience=patience)


def trusting(authority: Authority, shown: str | None = None, server_name: str = NAME) -> Trust:
    return Trust(server_name, SecretStr(authority.pem), SecretStr(shown) if shown else None)


async def found(one: Backend, connector: Connector | None = None) -> CheckOutcome | None:
    return await BackendProbe(one, connector or connector_by(LOOPBACK)).check()
