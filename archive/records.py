"""What PAX records change in a member. No I/O."""

from __future__ import annotations

from archive.errors import ArchiveError
from archive.members import FILE, GNU_SPARSE, Member
from archive.pax import parse_decimal, parse_time

__all__ = ["apply_records"]


def apply_records(member: Member, records: list[tuple[bytes, bytes]]) -> bytes | None:
    """Let PAX records say what the header could not; the format of a sparse map in front of the data.

    Keys that do not concern us are ignored, as POSIX wants it.
    """
    major = minor = b""
    sparse_name: bytes | None = None
    for key, value in records:
        if key.startswith(b"SCHILY.xattr."):
            member.xattrs[key[13:]] = value
        elif not value:
            continue  # an empty value takes the record back: the header's own holds
        elif key == b"path":
            member.name = value
        elif key == b"linkpath":
            member.link = value
        elif key == b"size":
            size = parse_decimal(value, member.name, "size")
            if member.kind in (FILE, GNU_SPARSE) or member.size:
                member.size = size
        elif key == b"uid":
            member.uid = parse_decimal(value, member.name, "uid")
        elif key == b"gid":
            member.gid = parse_decimal(value, member.name, "gid")
        elif key == b"mtime":
            member.mtime_ns = parse_time(value, member.name)
        elif key == b"GNU.sparse.major":
            major = value
        elif key == b"GNU.sparse.minor":
            minor = value
        elif key == b"GNU.sparse.name":
            sparse_name = value
        elif key in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
            member.real_size = parse_decimal(value, member.name, "size")
    if sparse_name is not None:
        member.name = sparse_name
    if major and major + b"." + minor not in (b"0.0", b"0.1", b"1.0"):
        raise ArchiveError(member.name, "unknown format of a sparse file")
    return b"1.0" if (major, minor) == (b"1", b"0") and member.kind == FILE else None
