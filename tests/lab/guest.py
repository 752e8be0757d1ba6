"""The guest of the lab's own tests: Mooring's kernel with a shell that a serial port drives."""

from __future__ import annotations

import stat
import subprocess
import time
from pathlib import Path
from typing import Any

from imagebuild.cpio import CpioWriter, Node
from imagebuild.iso import KERNEL_ARGUMENTS, write_iso

BUSYBOX = Path("/bin/busybox")

# The second serial port carries commands and their output, the virtio port
# guestinfo. One reader sorts what comes from the host: answers, and pushes.
_INIT = r"""#!/lab/busybox sh
export PATH=/lab/bin
/lab/busybox mkdir -p /lab/bin /proc /sys /dev /tmp
/lab/busybox --install -s /lab/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
if [ -e /etc/mooring/modules ]; then
  while read -r module ids; do insmod $module; done </etc/mooring/modules
fi
for port in /sys/class/virtio-ports/*; do
  [ "$(cat $port/name)" = org.lab.guestinfo ] && exec 3<>/dev/${port##*/}
done
mkfifo /tmp/answers
exec 5<>/tmp/answers
while read -r line <&3; do
  case "$line" in
    "! shutdown") poweroff -f ;;
    "! reboot") reboot -f ;;
    *) echo "$line" >&5 ;;
  esac
done &
rpc() { echo "$*" >&3; read -r answer <&5; echo "$answer"; }
stty -F /dev/ttyS1 raw -echo
exec 4<>/dev/ttyS1
echo ready >&4
while read -r line <&4; do eval "$line" >&4 2>&4; echo "[done $?]" >&4; done
"""


def write_guest(iso: Path, built: Path) -> None:
    """Make an ISO like the bootstrap.iso in ``built``, but with a shell on top of its initramfs."""
    kernel, initrd = iso.with_suffix(".kernel"), iso.with_suffix(".initrd")
    extract = ["xorriso", "-osirrox", "on", "-indev", str(built / "bootstrap.iso")]
    for name, path in (("/boot/kernel", kernel), ("/boot/initrd", initrd)):
        extract += ["-extract", name, str(path)]
    subprocess.run(extract, check=True, capture_output=True)
    initrd.chmod(0o600)
    with initrd.open("ab") as output:
        output.write(b"\0" * (-output.tell() % 512))
        cpio = CpioWriter(output)
        cpio.add(Node(name="lab", mode=stat.S_IFDIR | 0o755))
        cpio.add(Node(name="lab/busybox", mode=stat.S_IFREG | 0o755, data=BUSYBOX.read_bytes()))
        cpio.add(Node(name="lab/init", mode=stat.S_IFREG | 0o755, data=_INIT.encode()))
        cpio.close()
    write_iso(iso, kernel=kernel, initrd=initrd, arguments=f"{KERNEL_ARGUMENTS} rdinit=/lab/init")
    kernel.unlink()
    initrd.unlink()


class Shell:
    """The host's end of the guest's command port, over a socket or what behaves like one."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._buffer = b""

    def until(self, word: str, *, seconds: float = 120) -> str:
        """Everything up to and with ``word``."""
        end = time.monotonic() + seconds
        while word.encode() not in self._buffer:
            left = end - time.monotonic()
            assert left > 0, f"no {word!r} in {self._buffer!r}"
            self._connection.settimeout(left)
            piece = self._connection.recv(65536)
            assert piece, f"the port closed after {self._buffer!r}"
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(word.encode())
        return text.decode(errors="replace")

    def send(self, command: str) -> None:
        self._connection.sendall(command.encode() + b"\n")

    def run(self, command: str) -> str:
        """The command's output; it must succeed."""
        self.send(command)
        output = self.until("[done ")
        status = self.until("]\n")
        assert status == "0", f"{command}: {output}"
        return output.strip()

    def close(self) -> None:
        self._connection.close()
