from portlayer.offline.changes import ADDED, DELETED, MODIFIED
from portlayer.offline.setupfiles import without_setup_files

A, C, D = ADDED, MODIFIED, DELETED


def shown(*entries: tuple[str, bytes]) -> list[str]:
    found = without_setup_files([(kind, path.encode()) for path, kind in entries])
    return [path.decode() for _, path in found]


def test_what_a_start_makes_is_not_shown() -> None:
    assert (
        shown(("/dev", A), ("/dev/pts", A), ("/dev/shm", A), ("/etc", C), ("/etc/hosts", A), ("/proc", A))
        == []
    )
    assert shown(("/.dockerenv", A), ("/etc", C), ("/etc/mtab", A), ("/etc/resolv.conf", C)) == []


def test_directories_stay_when_something_else_changed_in_them() -> None:
    assert shown(("/etc", C), ("/etc/hosts", A), ("/etc/passwd", C)) == ["/etc", "/etc/passwd"]


def test_what_the_container_deleted_is_shown() -> None:
    assert shown(("/etc", C), ("/etc/hosts", D), ("/proc", D)) == ["/etc", "/etc/hosts", "/proc"]


def test_other_things_of_these_names_are_shown() -> None:
    assert shown(("/srv/etc/hosts", A), ("/home", A)) == ["/srv/etc/hosts", "/home"]
