"""Container names: what is allowed, and making one up. No I/O.

A made-up name is an adjective and the surname of somebody who worked on ships,
seas, or the machines that ended up in harbours' offices.
"""

from __future__ import annotations

import re
import secrets

from engine.http import BadRequest

__all__ = ["checked", "made_up"]

_VALID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
MAX_NAME = 255

_ADJECTIVES = (
    "able agile airy amber ample apt ardent awake azure balmy blithe bold brave breezy bright brisk calm "
    "candid cheery civil clear clever cosy crisp curious daring deft dapper eager earnest easy elated "
    "even fair fleet fond frank fresh gallant gentle giddy glad golden good grand happy hardy hearty "
    "honest humble ideal jaunty jolly jovial keen kind lively loyal lucid lucky mellow merry mild mindful "
    "modest neat nimble noble open patient placid plucky polite prime proud prudent quick quiet ready "
    "robust rosy serene sharp shy silent sincere sleek smart snug sober solid sound spry stable stately "
    "steady stoic sturdy subtle sunny swift tidy tranquil true trusty upbeat valiant vivid warm wise "
    "witty zesty"
).split()

_SURNAMES = (
    "amundsen anning baffin barents barton beaufort bering blackwell bougainville bowditch bransfield "
    "brunel byron cabot carson chichester cochrane columbus cook cousteau cunard davis dampier darwin "
    "drake earle eckert ekman ericson fitzroy flinders franklin frobisher fulton galton gray grimaldi "
    "halley hamilton harrison hawking hawkins heezen herschel hollerith hopper hudson humboldt huygens "
    "jansen joyon kelvin knox lamarr laperouse lovelace magellan marconi marsili maury mawson mercator "
    "munk nansen nelson newcomen noonan ohain parry parsons pascal peary peral piccard plimsoll polo "
    "pytheas raleigh rennell ross scoresby shackleton slocum smeaton somerville stokes symington tasman "
    "tharp torres trevithick tupaia turing vancouver vespucci wegener weddell wilkes zheng zuse"
).split()


def checked(name: str) -> str:
    """The name without its slash, or BadRequest with Docker's words."""
    bare = name.removeprefix("/")
    if not _VALID.fullmatch(bare) or len(bare) > MAX_NAME:
        raise BadRequest(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare


def made_up(attempt: int) -> str:
    """``adjective_surname``; from the third attempt on with a digit."""
    name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_SURNAMES)}"
    return f"{name}{secrets.randbelow(10)}" if attempt >= 2 else name
