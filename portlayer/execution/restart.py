"""Docker's restart policies as a pure state machine.

Back-off starts at 100 ms and doubles to one minute; a run of ten seconds resets
it. A stop or kill by a user cancels the policy for the run that it ends. At
port-layer start the same question is asked once per stopped container, as
dockerd does: ``always`` then starts even what a user had stopped.
"""

from __future__ import annotations

from dataclasses import dataclass

from portlayer.portlayer_pb2 import RestartPolicy

__all__ = ["FIRST_DELAY", "LONGEST_DELAY", "STABLE_RUN", "Backoff", "at_exit", "at_recovery"]

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
STABLE_RUN = 10.0


@dataclass
class Backoff:
    """The delay before the next automatic start of one container."""

    delay: float = 0.0

    def after_run(self, seconds: float) -> float:
        if seconds >= STABLE_RUN:
            self.delay = 0.0
        self.delay = FIRST_DELAY if self.delay == 0.0 else min(self.delay * 2, LONGEST_DELAY)
        return self.delay

    def reset(self) -> None:
        self.delay = 0.0


def at_exit(policy: RestartPolicy, *, exit_code: int, restart_count: int, cancelled: bool) -> bool:
    """Whether a container that has just exited starts again."""
    if cancelled:
        return False
    return _wanted(policy, exit_code=exit_code, restart_count=restart_count)


def at_recovery(policy: RestartPolicy, *, exit_code: int, restart_count: int, manual_stop: bool) -> bool:
    """Whether a container that was stopped when the port layer started is started."""
    if policy.condition == RestartPolicy.ALWAYS:
        return True
    if manual_stop:
        return False
    return _wanted(policy, exit_code=exit_code, restart_count=restart_count)


def _wanted(policy: RestartPolicy, *, exit_code: int, restart_count: int) -> bool:
    if policy.condition in (RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED):
        return True
    if policy.condition == RestartPolicy.ON_FAILURE:
        within = policy.maximum_retries == 0 or restart_count < policy.maximum_retries
        return exit_code != 0 and within
    return False
