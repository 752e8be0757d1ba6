from __future__ import annotations

from typing import Any

import pytest

from engine.containers import logtag
from engine.containers.hostconfig import LogSpec
from engine.containers.logconfig import log_config, readable
from engine.http import ApiError


def spec(driver: str = "", **options: str) -> LogSpec:
    return LogSpec(Type=driver, Config={name.replace("_", "-"): value for name, value in options.items()})


@pytest.mark.parametrize(
    ("log", "driver", "size", "files"),
    [
        (spec(), "journal", 0, 1),
        (spec("json-file", max_size="10m", max_file="3"), "journal", 10 << 20, 3),
        (spec("json-file", max_file="3", compress="false"), "journal", 0, 3),
        (spec("json-file", mode="non-blocking", max_buffer_size="4m"), "journal", 0, 1),
        (spec("local"), "journal", 20 << 20, 5),
        (spec("local", max_size="-1"), "journal", 0, 5),
        (spec("none"), "none", 0, 0),
        (spec("syslog"), "syslog", 20 << 20, 5),
        (spec("syslog", cache_max_size="1m", cache_max_file="2"), "syslog", 1 << 20, 2),
    ],
)
def test_drivers(log: LogSpec, driver: str, size: int, files: int) -> None:
    made = log_config(log)
    assert (made.driver, made.max_size, made.max_files) == (driver, size, files)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (spec("gelf"), "logger: no log driver named 'gelf' is registered"),
        (spec(colour="red"), "unknown log opt 'colour' for json-file log driver"),
        (spec("local", tag="x"), "unknown log opt 'tag' for local log driver"),
        (spec("syslog", max_size="1m"), "unknown log opt 'max-size' for syslog log driver"),
        (spec(max_size="much"), "invalid value for max-size: 'much'"),
        (spec(max_file="0"), "max-file cannot be less than 1 or more than 10000"),
        (spec(mode="sometimes"), "logger: logging mode not supported: sometimes"),
        (
            spec(max_buffer_size="1m"),
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (spec(mode="non-blocking", max_buffer_size="x"), "error parsing option max-buffer-size"),
        (spec(compress="true"), "--log-opt compress=true is not supported"),
        (spec(compress="maybe"), "neither true nor false"),
        (spec(labels_regex="("), "error parsing regexp"),
        (spec(tag="{{.Nope}}"), "can't evaluate field Nope"),
        (spec(tag="{{if .Name}}x{{end}}"), "may hold plain fields"),
        (spec("syslog", syslog_address="example.com"), "syslog-address should be in form proto://address"),
        (spec("syslog", syslog_address="http://h"), "syslog-address should be in form proto://address"),
        (spec("syslog", syslog_address="tcp://h:99999"), "syslog-address should be in form proto://address"),
        (spec("syslog", syslog_facility="local9"), "invalid syslog facility"),
        (spec("syslog", syslog_format="json"), "Invalid syslog format"),
        (spec("syslog", syslog_tls_cert="/c"), "syslog-tls options need"),
    ],
)
def test_refused(log: LogSpec, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        log_config(log)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("options", "scheme", "address", "facility"),
    [
        ({}, "", "", "3"),
        ({"syslog_address": "udp://10.0.0.1"}, "udp", "10.0.0.1:514", "3"),
        ({"syslog_address": "tcp+tls://[::1]:6514"}, "tcp+tls", "[::1]:6514", "3"),
        (
            {"syslog_address": "unixgram:///dev/log", "syslog_facility": "local7"},
            "unixgram",
            "/dev/log",
            "23",
        ),
        ({"syslog_facility": "0"}, "", "", "0"),
    ],
)
def test_syslog(options: dict[str, Any], scheme: str, address: str, facility: str) -> None:
    made = log_config(spec("syslog", **options)).options
    assert (made["scheme"], made["address"], made["facility"]) == (scheme, address, facility)
    assert made["tag"] == "{{.ID}}"


def test_what_docker_logs_can_read() -> None:
    readable(log_config(spec("syslog")))
    for log in (spec("none"), spec("syslog", cache_disabled="true")):
        with pytest.raises(ApiError, match="does not support reading"):
            readable(log_config(log))


def test_tags() -> None:
    template = "{{.ImageName}}/{{ .Name }}/{{.ID}}/{{.ImageID}}/{{.DaemonName}}"
    logtag.check(template)
    made = logtag.expand(
        template, container="a" * 64, image="busybox", image_id="sha256:" + "b" * 64, command="true"
    )
    assert made == f"busybox/{logtag.NAME}/{'a' * 12}/{'b' * 12}/Mooring"
