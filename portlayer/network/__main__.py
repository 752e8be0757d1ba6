"""``python -m portlayer.network remove VCH_ID``: remove what a VCH left on this host's network."""

from __future__ import annotations

import asyncio
import logging
import re
import sys

from portlayer.network.firewall import FirewallError
from portlayer.network.links import LinkError
from portlayer.network.purge import purge


def main(arguments: list[str]) -> int:
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    if len(arguments) != 2 or arguments[0] != "remove" or not re.fullmatch(r"[0-9a-f]{32}", arguments[1]):
        sys.stderr.write("usage: python -m portlayer.network remove VCH_ID\n")
        return 2
    try:
        names = asyncio.run(purge(arguments[1]))
    except (LinkError, FirewallError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("".join(f"removed {name}\n" for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
