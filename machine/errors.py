"""What vic-machine can fail with, and the exit code of each.

```
MachineError            1  something failed; the message says what and what to do
├── UsageProblem        2  the command line is wrong (click's own code, too)
├── NoSuchVch           3
├── VchExists           4
├── ValidationFailed    5  lists every problem found, nothing was changed
└── VchBusy             6  containers are running and --force was not given
```
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MachineError", "NoSuchVch", "UsageProblem", "ValidationFailed", "VchBusy", "VchExists"]


class MachineError(Exception):
    exit_code = 1


class UsageProblem(MachineError):
    exit_code = 2


class NoSuchVch(MachineError):
    exit_code = 3

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no virtual container host named {name!r}; `vic-machine ls` shows all")


class VchExists(MachineError):
    exit_code = 4

    def __init__(self, name: str) -> None:
        super().__init__(
            f"a virtual container host named {name!r} exists already; choose another --name,"
            f" start it with `vic-machine start {name}` or remove it with `vic-machine delete {name}`"
        )


class ValidationFailed(MachineError):
    exit_code = 5

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"- {problem}" for problem in problems))
        self.problems = tuple(problems)


class VchBusy(MachineError):
    exit_code = 6
