"""Forks daemons that have imported everything already: a restart costs milliseconds, not a second.

``python -m tests.system.kill.zygote DIRECTORY vch.json`` reads lines from its
input: the name of a daemon (answer: its process ID), or ``reap PID`` (answer:
its wait status, when it is dead). The daemons run their own ``__main__`` as ever.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"  # as portlayer/__main__.py does before its imports

import engine.__main__
import portlayer.__main__
import portlayer.service.daemon
from tests.system.kill.steps import install
from vch import VchConfig

PR_SET_PDEATHSIG = 1


def main(directory: Path, config: Path) -> None:
    for line in sys.stdin:
        words = line.split()
        if words[0] == "reap":
            answer = os.waitpid(int(words[1]), 0)[1]
        else:
            answer = _fork(words[0], directory, config, words[1:])
        print(answer, flush=True)


def _fork(name: str, directory: Path, config: Path, options: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        os.setsid()
        log = os.open(directory / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open("/dev/null", os.O_RDONLY)
        for target, source in ((0, null), (1, log), (2, log)):
            os.dup2(source, target)
        sys.argv = [name, "--config", str(config), *options]
        module = {"portlayer": portlayer.__main__, "engine": engine.__main__}[name]
        if name == "portlayer":
            paths = VchConfig.load(config).paths
            install(directory, (paths.root, paths.run))
        code = module.main()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
