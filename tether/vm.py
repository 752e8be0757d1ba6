"""The life of one container VM, from "mounted" to "powered off": who is told what, and in which order.

read the configuration → network → container → (runs) → EXITED or FAILED is
journaled → unmount → power off. Every failure on the way becomes FAILED with
its reason: PID 1 never dies of one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tether.become import CANNOT_START
from tether.bootconfig import ConfigError, read_boot_config
from tether.container import Container
from tether.etcfiles import update_names
from tether.events import EventLog
from tether.execs import Execs
from tether.freeze import Freezer
from tether.health import HealthRunner
from tether.journal import Kind
from tether.log import Log
from tether.loop import Loop, Timer
from tether.network import Network, NetworkError
from tether.ports import Ports
from tether.power import PowerOff, cut_power
from tether.recorder import Recorder
from tether.stdio import Sessions
from tether.storage import mount_points
from tether.tether_pb2 import (
    BootConfig,
    HostEntry,
    MainState,
    NetworkEvent,
    NetworkSetRequest,
    Resolver,
)

if TYPE_CHECKING:
    from tether.relay import Relay

__all__ = ["Vm"]

_LEASE_SECONDS = 30.0
_STOP_SECONDS = 10.0
_SIGTERM = 15


class Vm:
    def __init__(self, loop: Loop, ports: Ports, log: Log) -> None:
        self.loop = loop
        self.log = log
        self.nonce = os.urandom(16)
        journal = ports.journal
        if journal < 0:
            log.say("tether: this machine has no journal port: output and state are lost")
            journal = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self.recorder = Recorder(loop, journal)
        self.recorder.boot(self.nonce)
        self.events = EventLog()
        self.sessions = Sessions(loop, self.recorder, self.events)
        self.container = Container(
            loop,
            self.recorder,
            self.events,
            self.sessions,
            log=log.note,
            forbidden=ports.forbidden,
            on_started=self._started,
            on_end=self._end,
        )
        self.execs = Execs(loop, self.container, self.sessions)
        self.health = HealthRunner(loop, self.container, self.recorder, self.events, log=log.note)
        self.network = Network(loop, log=log.note, on_change=self._leases_changed)
        self.freezer = Freezer(loop, log=log.note)
        self.power = PowerOff(loop, self.container.cgroup, log=log.say, power_off=cut_power)
        self.config = BootConfig()
        self.relay: Relay | None = None
        self._resolver = Resolver()
        self._hosts: list[HostEntry] = []
        self._waiting_for_lease: Timer | None = None
        self._started_waiters: list[Callable[[MainState], None]] = []

    # ---------------------------------------------------------------- start

    def begin(self) -> None:
        """Start the container, or wait to be told to."""
        try:
            config = read_boot_config()
        except ConfigError as error:
            self.container.fail(str(error), CANNOT_START)
            return
        self.config = config
        if config.wait_for_launch:
            self.container.wait(config)
            return
        self._launch(config)

    def launch(self, done: Callable[[MainState], None]) -> None:
        """Start a waiting container under the configuration shown now; ``done`` is told what became of it."""
        if self.container.state.state != MainState.WAITING:
            done(self.container.state)
            return
        self._started_waiters.append(done)
        if len(self._started_waiters) > 1:
            return
        try:
            self.config = read_boot_config()
        except ConfigError as error:
            self._fail(str(error))
            return
        self._launch(self.config)

    def _launch(self, config: BootConfig) -> None:
        self._resolver, self._hosts = config.resolver, list(config.hosts)
        try:
            self.network.loopback_up()
            self.network.apply(list(config.interfaces), hostname=config.hostname)
        except (NetworkError, OSError) as error:
            self._fail(f"network: {error}")
            return
        if self.network.pending:
            self._waiting_for_lease = self.loop.after(_LEASE_SECONDS, self._no_lease)
        else:
            self._start_container()

    def _no_lease(self) -> None:
        names = ", ".join(self.network.pending)
        self._fail(f"network: no DHCP lease for {names} within {_LEASE_SECONDS:g} s")

    def _leases_changed(self) -> None:
        self._write_names()
        if self._waiting_for_lease is not None and not self.network.pending:
            self._waiting_for_lease.cancel()
            self._waiting_for_lease = None
            self._start_container()
        elif self.container.running:
            self._network_event()

    def _start_container(self) -> None:
        self._network_event()
        if self.config.engine_sockets:
            from tether.relay import Relay  # late: few containers have it

            self.relay = Relay(self.loop)
        self.container.start(self.config, write_names=self._write_names)
        if self.container.state.state == MainState.FAILED:
            self._answer_launch()

    def _fail(self, text: str) -> None:
        self.container.fail(text, CANNOT_START)
        self._answer_launch()

    def _started(self) -> None:
        self.health.start(self.config.health)
        self._answer_launch()

    def _answer_launch(self) -> None:
        waiters, self._started_waiters = self._started_waiters, []
        for done in waiters:
            done(self.container.state)

    # ---------------------------------------------------------------- network

    def set_network(self, request: NetworkSetRequest) -> NetworkEvent:
        """Bring the network to the wanted set, now.

        Raises:
            NetworkError: names the interface.
        """
        self.network.apply(list(request.interfaces), hostname=self.config.hostname)
        self._resolver, self._hosts = request.resolver, list(request.hosts)
        self._write_names()
        return self._network_event()

    def _network_event(self) -> NetworkEvent:
        event = NetworkEvent(up=True, interfaces=self.network.interfaces())
        self.recorder.record(Kind.NETWORK, event.SerializeToString())
        self.events.publish(network=event)
        return event

    def _write_names(self) -> None:
        """Names and resolver as the host wants them; what it leaves open comes from DHCP."""
        resolver = Resolver()
        resolver.CopyFrom(self._resolver)
        servers, search = self.network.leased_servers()
        if not resolver.servers:
            resolver.servers.extend(servers)
        if not resolver.search:
            resolver.search.extend(search)
        hosts = list(self._hosts)
        for interface in self.network.interfaces():
            if interface.dhcp and interface.addresses:
                address = interface.addresses[-1].partition("/")[0]
                hosts.append(HostEntry(address=address, names=[self.config.hostname or self.config.id[:12]]))
        update_names(resolver, hosts)

    # ---------------------------------------------------------------- end

    def shutdown(self, *, reason: str, force: bool) -> None:
        """End the container, then the VM: SIGTERM and ten seconds, or at once."""
        self.log.note(f"shutdown: {reason}")
        if not self.container.running:
            self._end()
        elif force:
            self.container.cgroup.kill()
        else:
            os.kill(self.container.state.pid, _SIGTERM)
            self.loop.after(_STOP_SECONDS, self._stop_harder)

    def _stop_harder(self) -> None:
        if self.container.running:
            self.container.cgroup.kill()

    def _end(self) -> None:
        self.health.stop()
        self.freezer.thaw()
        self._answer_launch()
        state = self.container.state
        self.log.say(f"tether: {MainState.State.Name(state.state)} {state.exit_code} {state.error}".rstrip())
        self.power.begin(mount_points(self.config))

    def uptime(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
