"""Container names: their grammar, and friendly ones for those who give none."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container as Collection

from orlop.base.errors import InvalidInput

__all__ = ["check_name", "random_name"]

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")  # dockerd: names.RestrictedNamePattern
_MAX_NAME = 255

ADJECTIVES = tuple(
    "able airy alert amber ample apt arch ardent azure balmy bold brave breezy bright brisk "
    "calm candid cheery civil clear clever cosy crisp curious daring deft dreamy eager early easy "
    "elated fair fancy firm fleet fond frank fresh gentle glad golden good grand hale handy happy "
    "hardy hearty humble jolly jovial keen kind level lively loyal lucid lucky mellow merry mild "
    "modest neat nimble noble open patient placid plucky polite prime proud quick quiet ready "
    "robust rosy sage serene sharp silent silver sleek smart snug sober solid spry stable staunch steady "
    "stout sturdy sunny sure swift tidy trim true trusty upbeat valiant vivid warm wise witty zesty".split()
)
SURNAMES = tuple(
    "amundsen anson baffin baker barentsz beaufort bering blackburn bligh bougainville bowditch burney "
    "cabot cavendish chichester columbus cook cortes cousteau dampier darwin davis "
    "drake earle elcano erikson fitzroy flinders forster franklin frobisher gama gilbert harrison "
    "hawkins heyerdahl hudson humboldt ibnbattuta ibnmajid jansz knox "
    "laperouse lind macarthur magellan malaspina maury mercator nansen nelson nordenskiold parry piailug "
    "pigafetta pytheas raleigh rodney ross saavedra sacagawea scoresby selkirk semmes shackleton "
    "slocum stark tabarly tasman tereshkova tharp torres tupaia ulloa urdaneta vancouver verrazzano "
    "vespucci vlamingh wallis weddell wilkes worsley xuanzang zhenghe".split()
)


def check_name(name: str, *, prefix: str = "") -> str:
    """A name as the user wrote it, without its slash; `prefix` is that of the message.

    Raises:
        InvalidInput: with dockerd's text.
    """
    if not _NAME.match(name) or len(name) > _MAX_NAME:
        raise InvalidInput(
            f"{prefix}Invalid container name ({name[:300]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return name.removeprefix("/")


def random_name(taken: Collection[str]) -> str:
    """`adjective_surname`; a number is appended when the first tries are taken."""
    name = ""
    for attempt in range(6):
        name = f"{secrets.choice(ADJECTIVES)}_{secrets.choice(SURNAMES)}"
        if attempt:
            name += str(secrets.randbelow(10**attempt))
        if name not in taken:
            return name
    return f"{name}_{secrets.token_hex(4)}"
