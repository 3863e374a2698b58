"""`beamlit pause`, `resume`, `set-split`, `failover`, `failback`: a model directed by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from controller.api.timing import Timing
from controller.cli.options import is_typed, timed
from controller.cli.place import about_one_model, errors_told

if TYPE_CHECKING:
    from controller.programs.models import Place

LEFT_TO_AUTHOR = 5
NOT_IN_FORCE = 6

_Asked = tuple[bool, int | None, timedelta | None]
"""To pause, a share in percent that leaves, and how long that holds."""


class WhileType(click.ParamType[timedelta]):
    """`10m`."""

    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse a duration from one second to a year, or say what is wrong."""
        from controller.api.schema.scalars import parse_duration  # noqa: PLC0415 - imports pydantic

        try:
            duration = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if duration < timedelta(seconds=1):
            self.fail(f"must be at least 1s, is {value}", param, ctx)
        return duration


_FOR = click.option(
    "--for",
    "lasting",
    type=WhileType(),
    show_default="until `beamlit resume`",
    help="How long it holds, such as 10m or 1h30m; then the rules decide again.",
)
_WAIT = click.option("--wait", is_flag=True, help="Wait until it is in force: decided, and at every Envoy.")
_TIMEOUT = click.option(
    "--timeout", type=WhileType(), default="30s", show_default=True, help="How long --wait waits, at most."
)


def _by_hand(*options: Callable[[Any], Any]) -> Callable[[Callable[..., _Asked]], click.Command]:
    """Make commands of functions that say what is asked for; these are their options, besides those of all."""

    def made(command: Callable[..., _Asked]) -> click.Command:
        @about_one_model
        @_WAIT
        @_TIMEOUT
        @timed
        @functools.wraps(command)
        def directing(name: str, place: Place, wait: bool, timeout: timedelta, timing: Timing, **asked: Any) -> None:
            from controller.programs.by_hand import Direction, Hand, Outcome, direct  # noqa: PLC0415

            if is_typed("timeout") and not wait:
                raise click.UsageError("--timeout is for --wait.")
            hand = Hand(
                say=click.echo,
                clock=lambda: datetime.now(UTC),
                timing=timing,
                wait=timeout if wait else None,
                same_place=place.options,
            )
            with errors_told(place):
                outcome = direct(place, name, Direction(*command(**asked)), hand)
            codes = {Outcome.LEFT_TO_AUTHOR: LEFT_TO_AUTHOR, Outcome.NOT_IN_FORCE: NOT_IN_FORCE}
            raise SystemExit(codes.get(outcome, 0))

        with_options: Any = directing
        for option in reversed(options):
            with_options = option(with_options)
        return click.command(name=command.__name__.replace("_", "-"), epilog=_CODES)(with_options)

    return made


_CODES = (
    "Exit codes: 0 done; 1 no such model; 2 wrong usage; 3 nothing answers; 4 not allowed; 5 left to the author of the "
    "file; 6 not in force (--wait)."
)


@_by_hand()
def pause() -> _Asked:
    """Hold the present split of the model NAME until `beamlit resume`.

    Envoy's own failover goes on. It writes the annotation beamlit.com/paused. In the folder of a `beamlit run` it
    writes nothing, and says where to write it.

    \b
    Examples:
      beamlit pause php-apache
      beamlit pause php-apache -n team --wait
    """
    return True, None, None


@_by_hand()
def resume() -> _Asked:
    """Let the rules decide again on the model NAME.

    It removes the annotations beamlit.com/paused and beamlit.com/override. In the folder of a `beamlit run` it writes
    nothing, and says what to remove.

    \b
    Examples:
      beamlit resume php-apache
    """
    return False, None, None


@_by_hand(click.argument("percent", metavar="PERCENT", type=click.IntRange(0, 100)), _FOR)
def set_split(percent: int, lasting: timedelta | None) -> _Asked:
    """Send PERCENT of the requests of the model NAME to the remote backend, whatever is measured.

    It writes the annotation beamlit.com/override. In the folder of a `beamlit run` it writes nothing, and says where
    to write it.

    \b
    Examples:
      beamlit set-split 30 php-apache
      beamlit set-split 30 --for 10m php-apache --wait
    """
    return False, percent, lasting


@_by_hand(_FOR)
def failover(lasting: timedelta | None) -> _Asked:
    """Send every request of the model NAME to the remote backend: `beamlit set-split 100`.

    \b
    Examples:
      beamlit failover php-apache
      beamlit failover --for 1h php-apache
    """
    return False, 100, lasting


@_by_hand(_FOR)
def failback(lasting: timedelta | None) -> _Asked:
    """Send no request of the model NAME to the remote backend by the split: `beamlit set-split 0`.

    Envoy's own failover goes on; and with `maxRequestsPerReplica`, what the replicas have no room for still leaves.

    \b
    Examples:
      beamlit failback php-apache
    """
    return False, 0, lasting
