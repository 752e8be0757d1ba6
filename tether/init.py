"""PID 1 of a container VM. The imports of this program are boot time: look twice before adding one.

When PID 1 ends, the kernel panics; so whatever goes wrong here is said on the
console and in the journal, and ends in a power-off.
"""

from __future__ import annotations

import gc
import time

from tether import boot
from tether.cgroup import read
from tether.devices import port_majors
from tether.lean import BEGAN
from tether.log import Log
from tether.loop import Loop
from tether.ports import find_ports
from tether.power import cut_power
from tether.server import Server
from tether.service import Service
from tether.vm import Vm

__all__ = ["main"]


def main() -> None:
    """Run the container VM; never returns."""
    log = Log()
    try:
        _run(log)
    except BaseException as error:
        log.exception(error)
    cut_power()


def _run(log: Log) -> None:
    imported = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - BEGAN
    boot.leave_initial_root()
    boot.mount_kernel_file_systems()
    for problem in boot.load_modules() + boot.set_machine_defaults():
        log.note(problem)
    log.note(f"python started at {BEGAN / 1e9:.3f}, imports took {imported / 1e9:.3f} s")
    loop = Loop(log.exception)
    ports = find_ports(virtio_majors=port_majors(read("/proc/devices")))
    vm = Vm(loop, ports, log)
    service = Service(vm)
    server = Server(loop, log=log.note)
    service.register(server)
    if ports.channel >= 0:
        server.serve(ports.channel)
    else:
        log.say("tether: this machine has no channel port")
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    service.ready(boot_ns=now, import_ns=imported)
    log.say("tether ready")
    # What there is now stays for good: the collector need not look at it again.
    gc.freeze()
    gc.enable()
    loop.soon(vm.begin)
    loop.run()
