"""Which kernel modules a modular kernel needs in the initramfs, and in which order.

``modules.dep`` (written by depmod) lists for each module the modules it needs.
The tether loads the list front to back with finit_module(2); a module that
is built in has no file and is skipped.
"""

from __future__ import annotations

import lzma
import re
from pathlib import Path

from imagebuild.kernels import KernelError

__all__ = ["BOOT", "ON_DEMAND", "module_bytes", "module_order"]

# Needed to reach "tether ready" on one of the two machine profiles. Behind the
# name: PCI IDs; when given, the tether loads it only if such a device is there.
BOOT: dict[str, tuple[str, ...]] = {
    "qemu_fw_cfg": (),
    "virtio_pci": ("1af4",),
    "virtio_console": ("1af4",),
    "virtio_blk": ("1af4",),
    "virtio_net": ("1af4",),
    "virtio_scsi": ("1af4:1004", "1af4:1048"),
    "vmw_pvscsi": ("15ad:07c0",),
    "vmxnet3": ("15ad:07b0",),
    "vmw_vsock_vmci_transport": ("15ad:0740",),
    "sd_mod": ("15ad:07c0", "1af4:1004", "1af4:1048"),
    "ata_piix": ("8086:7010", "8086:7111"),
    "sr_mod": ("8086:7010", "8086:7111"),
    "ext4": (),
}

# Loaded by the kernel itself through modprobe when a workload asks.
ON_DEMAND = (
    "overlay fuse virtiofs isofs nfs nfsv3 nfsv4 vmw_vsock_virtio_transport vsock_loopback bridge veth tun "
    "dummy vxlan macvlan ipvlan br_netfilter nf_tables nft_ct nft_nat nft_masq nft_redir "
    "nft_reject_inet nft_chain_nat nft_compat nft_limit nft_log nft_fib_inet nf_conntrack_netlink "
    "ip_tables iptable_nat iptable_filter iptable_mangle iptable_raw ip6_tables ip6table_nat "
    "ip6table_filter xt_MASQUERADE xt_addrtype xt_comment xt_conntrack xt_mark xt_multiport xt_nat "
    "xt_REDIRECT xt_tcpudp ip_set xt_set ipt_REJECT ip6t_REJECT loop squashfs erofs sctp af_packet "
    "unix_diag inet_diag tcp_diag udp_diag "
).split()


def module_order(directory: Path, names: list[str]) -> list[Path]:
    """Paths below ``directory`` of ``names`` and all they depend on, dependencies first."""
    dependencies: dict[str, list[str]] = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        dependencies[path] = needs.split()
    by_name = {_module_name(path): path for path in dependencies}
    builtin = {_module_name(line) for line in (directory / "modules.builtin").read_text().splitlines()}
    ordered: dict[str, None] = {}

    def visit(path: str) -> None:
        for needed in dependencies[path]:
            if needed not in ordered:
                visit(needed)
        ordered.setdefault(path)

    for name in names:
        key = name.replace("-", "_")
        if key in by_name:
            visit(by_name[key])
        elif key not in builtin and name in BOOT:
            raise KernelError(f"the kernel in {directory} has no module {name}, and it is not built in")
    return [Path(path) for path in ordered]


def module_bytes(path: Path) -> bytes:
    """The module's ELF image, decompressed: the guest should not spend boot time on it."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(data).read()
    return data


def _module_name(path: str) -> str:
    return re.sub(r"\.ko(\.\w+)?$", "", Path(path).name).replace("-", "_")
