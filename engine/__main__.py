"""``python -m engine --config vch.json``: serve one VCH's Docker API in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from engine.daemon import run
from engine.operation import OperationFilter
from vch.config import VchConfig, VchConfigError

FORMAT = "%(asctime)s %(levelname)s engine %(name)s op=%(operation)s %(message)s"


def main() -> int:
    parser = argparse.ArgumentParser(prog="mooring-engine", description="Docker API of one VCH")
    parser.add_argument("--config", type=Path, required=True, help="the VCH's vch.json")
    parser.add_argument("--debug", action="store_true", help="log every request")
    arguments = parser.parse_args()
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(OperationFilter())
    logging.basicConfig(level=logging.INFO, format=FORMAT, handlers=[handler])
    if arguments.debug:
        logging.getLogger("engine").setLevel(logging.DEBUG)
    try:
        config = VchConfig.load(arguments.config)
        asyncio.run(run(config))
    except (VchConfigError, OSError, ValueError) as error:
        logging.getLogger("engine").error("cannot serve: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
