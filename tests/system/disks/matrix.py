"""What must be there after a kill at each step: (layer, container, volume)."""

import random

from tests.archive.support import entry, tar

SURVIVED = 3  # the victim's exit code when an error reached it
_random = random.Random(1)
LAYER = tar(
    (entry("etc/conf"), b"conf"),
    *((entry(f"lib/f{number}"), _random.randbytes(40_000)) for number in range(200)),
)
STEPS = {
    "base:formatted": (False, False, False),
    "layer:directory": (False, False, False),
    "layer:disk": (False, False, False),
    "layer:mounted": (False, False, False),
    "layer:streaming": (False, False, False),
    "layer:unpacked": (False, False, False),
    "layer:closed": (False, False, False),
    "layer:described": (False, False, False),
    "layer:published": (True, False, False),
    "container:directory": (True, False, False),
    "container:disk": (True, False, False),
    "container:published": (True, True, False),
    "offline:open": (True, True, False),
    "offline:written": (True, True, False),
    "volume:directory": (True, True, False),
    "volume:formatted": (True, True, False),
    "volume:published": (True, True, True),
    "volume:removing": (True, True, True),
    "container:removing": (True, True, False),
    "layer:removing": (True, False, False),
}
WITH_CHILDREN = ("layer:mounted", "layer:streaming", "layer:unpacked", "offline:open", "offline:written")
