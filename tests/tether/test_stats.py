"""Kernel files into counters."""

from __future__ import annotations

from tether.cgroup import flat_keyed
from tether.processes import parse_stat
from tether.stats import block_counters, network_counters, system_cpu

NET = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0: 1234567    8910   11   12   13    14         15        16     2345      67    8    9   10    11      12         13
"""


def test_network_counters_leave_the_loopback_out() -> None:
    (counters,) = network_counters(NET)
    assert counters.name == "eth0"
    assert (counters.rx_bytes, counters.rx_packets, counters.rx_errors, counters.rx_dropped) == (
        1234567,
        8910,
        11,
        12,
    )
    assert (counters.tx_bytes, counters.tx_packets, counters.tx_errors, counters.tx_dropped) == (
        2345,
        67,
        8,
        9,
    )


def test_block_counters_come_by_device_and_skip_what_has_none() -> None:
    text = "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:0 \n254:16 rbytes=5\nnonsense\n"
    counters = block_counters(text)
    assert [(c.major, c.minor, c.read_bytes, c.write_bytes, c.read_ops, c.write_ops) for c in counters] == [
        (254, 0, 1, 2, 3, 4),
        (7, 0, 0, 0, 0, 0),
        (254, 16, 5, 0, 0, 0),
    ]


def test_system_time_counts_all_but_guest_time_once() -> None:
    text = "cpu  1 2 3 4 5 6 7 8 100 200\ncpu0 9 9 9 9 9 9 9 9 9 9\n"
    assert system_cpu(text) == 36 * 10_000_000


def test_flat_files_skip_what_is_no_number() -> None:
    assert flat_keyed("anon 12\nfile max\n\nshmem 3\n") == {"anon": 12, "shmem": 3}


def test_a_process_name_may_hold_brackets_and_spaces() -> None:
    fields = "S 1 5 5 34817 5 4194304 0 0 0 0 150 50 0 0 20 0 1 0 1000 4096 3 " + "0 " * 20
    info = parse_stat(f"42 (a) b (c)) {fields}", boot=7)
    assert (info.pid, info.ppid, info.comm, info.stat) == (42, 1, "a) b (c)", "S")
    assert (info.cpu_ns, info.vsz, info.rss) == (2 * 10**9, 4096, 3 * 4096)
    assert info.tty == "pts/1"
    assert info.start_time == 7 + 10 * 10**9
