"""``--log-driver`` and ``--log-opt``: dockerd's drivers, options and words. No I/O.

Every driver but ``none`` keeps the journal, so ``docker logs`` reads from all of
them; ``syslog`` also sends each line on, from the journal. A container never
waits for its log driver, which is what ``mode=non-blocking`` asks for; and
nothing is dropped for it, because the journal is the buffer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from engine.containers import logtag
from engine.containers.hostconfig import LogSpec
from engine.containers.sizes import size_in_bytes
from engine.http import BadRequest, InternalError, Unsupported
from portlayer import portlayer_pb2 as pb

__all__ = ["DRIVERS", "log_config", "readable"]

DRIVERS = ("json-file", "local", "none", "syslog")

_EXTRA = ("labels", "labels-regex", "env", "env-regex", "tag")  # `docker logs --details`; syslog's tag
_MODE = ("mode", "max-buffer-size")
_CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
_KNOWN: Mapping[str, Collection[str]] = {
    "json-file": ("max-size", "max-file", "compress", *_EXTRA),
    "local": ("max-size", "max-file", "compress"),
    "syslog": (
        *_EXTRA,
        *_CACHE,
        "syslog-address",
        "syslog-facility",
        "syslog-format",
        "syslog-tls-ca-cert",
        "syslog-tls-cert",
        "syslog-tls-key",
        "syslog-tls-skip-verify",
    ),
}
_LOCAL_SIZE, _LOCAL_FILES = 20 << 20, 5  # local's own, and of the copy that `docker logs` reads beside syslog
_SCHEMES = ("tcp", "udp", "tcp+tls", "unix", "unixgram")
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_FACILITIES = (
    *"kern user mail daemon auth syslog lpr news uucp cron authpriv ftp".split(),
    *("", "", "", ""),  # 12 to 15 have no names
    *(f"local{number}" for number in range(8)),
)
_DAEMON = 3
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


def log_config(log: LogSpec) -> pb.LogConfig:
    """
    Raises:
        ApiError: with dockerd's words, for what it refuses, too.
    """
    driver, options = log.Type or "json-file", log.Options
    if driver not in DRIVERS:
        raise BadRequest(f"logger: no log driver named '{driver}' is registered")
    if driver == "none":
        return pb.LogConfig(driver="none")
    _check_mode(options)
    for name in options:
        if name not in _KNOWN[driver] and name not in _MODE:
            raise BadRequest(f"unknown log opt '{name}' for {driver} log driver")
    for name in ("labels-regex", "env-regex"):
        _check_pattern(options.get(name, ""))
    logtag.check(options.get("tag", ""))
    made = pb.LogConfig(driver="journal", options={"driver": driver, **options})
    if driver == "json-file":
        made.max_size, made.max_files = _limits(options, "", 0, 1)
    elif driver == "local":
        made.max_size, made.max_files = _limits(options, "", _LOCAL_SIZE, _LOCAL_FILES)
    else:
        made.max_size, made.max_files = _limits(options, "cache-", _LOCAL_SIZE, _LOCAL_FILES)
        made.driver = "syslog"
        _flag(options, "cache-disabled")
        made.options.update(_syslog(options))
    return made


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise BadRequest(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise BadRequest("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        text = options["max-buffer-size"]
        size_in_bytes(text, f"error parsing option max-buffer-size: invalid size: '{text}'")


def _limits(options: Mapping[str, str], prefix: str, size: int, files: int) -> tuple[int, int]:
    name = f"{prefix}max-size"
    if name in options:
        text = options[name]
        size = 0 if text == "-1" else size_in_bytes(text, f"invalid value for {name}: '{text}'")
    name = f"{prefix}max-file"
    if name in options:
        text = options[name]
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:6]) <= 10_000:
            raise BadRequest(f"{name} cannot be less than 1 or more than 10000")
        files = int(text)
    name = f"{prefix}compress"
    if _flag(options, name):
        raise Unsupported(f"--log-opt {name}=true is not supported: journals are kept uncompressed")
    return size, files


def _flag(options: Mapping[str, str], name: str) -> bool:
    text = options.get(name, "")
    if text and text not in _TRUE + _FALSE:
        raise BadRequest(f'invalid value for {name}: "{text}" is neither true nor false')
    return text in _TRUE


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadRequest(f"error parsing regexp: {error}: {pattern!r}") from None


# -- syslog


def _syslog(options: Mapping[str, str]) -> dict[str, str]:
    """Checked and reduced to what the port layer sends by: scheme, address, facility, format, tag."""
    scheme, address = _address(options.get("syslog-address", ""))
    if options.get("syslog-format", "") not in _FORMATS:
        raise BadRequest("Invalid syslog format")
    tls = any(name.startswith("syslog-tls-") for name in options)
    if tls and scheme != "tcp+tls":
        raise BadRequest("syslog-tls options need a syslog-address with tcp+tls://")
    return {
        "scheme": scheme,
        "address": address,
        "facility": str(_facility(options.get("syslog-facility", ""))),
        "tag": options.get("tag", "") or "{{.ID}}",
    }


def _address(text: str) -> tuple[str, str]:
    """Scheme and ``host:port`` or path; both "" mean the host's own syslog."""
    if not text:
        return "", ""
    try:
        url = urlsplit(text)
        port = url.port or 514
    except ValueError:
        raise BadRequest(f"syslog-address should be in form proto://address, got {text}") from None
    if url.scheme not in _SCHEMES:
        raise BadRequest(f"syslog-address should be in form proto://address, got {text}")
    if url.scheme in ("unix", "unixgram"):
        if not url.path.startswith("/"):
            raise BadRequest(f"syslog-address should be in form proto://address, got {text}")
        return url.scheme, url.path
    if not url.hostname:
        raise BadRequest(f"syslog-address should be in form proto://address, got {text}")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return url.scheme, f"{host}:{port}"


def _facility(text: str) -> int:
    if not text:
        return _DAEMON
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    if text.isascii() and text.isdigit() and int(text[:3]) <= 23:
        return int(text[:3])
    raise BadRequest("invalid syslog facility")


def readable(log: pb.LogConfig) -> None:
    """Raise InternalError, as dockerd does, when `docker logs` has nothing to read from."""
    if log.driver == "none" or log.options.get("cache-disabled") in _TRUE:
        raise InternalError("configured logging driver does not support reading")
