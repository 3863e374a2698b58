"""The product's own times for tests that are about where requests go, and not about those times."""

from __future__ import annotations

from dataclasses import replace

from controller.api.timing import REAL

PATIENT = replace(REAL, gateway=replace(REAL.gateway, connect_near=60.0, connect_far=60.0))
"""The real ones, but that a connection may take as long as any pause of a busy machine.

A request that cannot connect in a quarter of a second goes to the other side, and the one after it fails if there is
none. Every plane and every program that is forked has these unless a test is about others, which it makes of these.
"""
