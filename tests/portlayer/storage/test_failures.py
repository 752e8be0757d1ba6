import errno
from pathlib import Path

import pytest

from portlayer.errors import PortLayerError
from portlayer.offline.vmdk import VmdkError
from portlayer.portlayer_pb2 import Reason
from portlayer.storage import failures
from portlayer.storage.failures import translated
from portlayer.storage.worker import WorkerError

CASES = [
    (WorkerError("archive", "bad"), Reason.BAD_LAYER),
    (WorkerError("conflict", "dir"), Reason.IS_DIRECTORY_CONFLICT),
    (WorkerError("os", "missing", errno.ENOENT), Reason.NO_SUCH_PATH),
    (WorkerError("os", "file", errno.ENOTDIR), Reason.IS_DIRECTORY_CONFLICT),
    (WorkerError("os", "read-only", errno.EROFS), Reason.NOT_SUPPORTED),
    (WorkerError("os", "full", errno.ENOSPC), Reason.NO_SPACE),
    (WorkerError("os", "quota", errno.EDQUOT), Reason.NO_SPACE),
    (WorkerError("os", "broken", errno.EIO), Reason.UNSPECIFIED),
    (WorkerError("fault", 'Failed to get "write" lock'), Reason.ALREADY_RUNNING),
    (WorkerError("fault", "died"), Reason.UNSPECIFIED),
    (OSError(errno.ENOSPC, "full"), Reason.NO_SPACE),
    (OSError(errno.EACCES, "denied"), Reason.UNSPECIFIED),
    (VmdkError("no VMDK"), Reason.UNSPECIFIED),
    (PortLayerError(Reason.NO_SUCH_KEY, "as it is"), Reason.NO_SUCH_KEY),
]


@pytest.mark.parametrize(("error", "reason"), CASES, ids=str)
def test_reasons(tmp_path: Path, error: Exception, reason: Reason.ValueType) -> None:
    with pytest.raises(PortLayerError) as caught, translated("thing", place=tmp_path):
        raise error
    assert caught.value.reason == reason
    assert caught.value is error or str(caught.value).startswith("thing: ")


@pytest.mark.parametrize("error", [WorkerError("os", "broken", errno.EIO), WorkerError("fault", "unclean")])
def test_an_io_error_on_a_full_disk_is_no_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(failures, "_LITTLE", 1 << 62)
    with (
        pytest.raises(PortLayerError, match=f"no space left in {tmp_path}") as caught,
        translated("x", place=tmp_path),
    ):
        raise error
    assert caught.value.reason == Reason.NO_SPACE


def test_a_bad_archive_on_a_full_disk_is_a_bad_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "_LITTLE", 1 << 62)
    with pytest.raises(PortLayerError) as caught, translated("x", place=tmp_path):
        raise WorkerError("archive", "bad")
    assert caught.value.reason == Reason.BAD_LAYER


def test_a_callers_own_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), translated("x", place=tmp_path, body_is_foreign=True):
        raise ConnectionResetError
    with pytest.raises(ZeroDivisionError), translated("x", place=tmp_path):
        raise ZeroDivisionError
