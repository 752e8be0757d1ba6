from __future__ import annotations

import pytest

from tests.engine.conftest import Api


async def test_create_list_start_delete(api: Api) -> None:
    container = await api.run()
    path = f"/containers/{container}/checkpoints"
    assert (await api("POST", path, {"CheckpointID": "one"})).status == 201
    assert (await api("POST", path, {"CheckpointID": "two", "Exit": True})).status == 201
    assert (await api("GET", path)).json == [{"Name": "one"}, {"Name": "two"}]
    assert (await api("GET", f"/containers/{container}/json")).json["State"]["Running"] is False
    assert (await api("POST", f"/containers/{container}/start?checkpoint=two")).status == 204
    assert (await api("DELETE", f"{path}/two")).status == 204
    assert (await api("GET", path)).json == [{"Name": "one"}]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"CheckpointID": "one"}, 500, "checkpoint with name one already exists for container web"),
        ({"CheckpointID": "../x"}, 500, "Invalid checkpoint ID (../x)"),
        ({"CheckpointID": ""}, 500, "Invalid checkpoint ID ()"),
        ({"CheckpointID": "x", "CheckpointDir": "/tmp"}, 403, "custom checkpointdir is not supported"),
    ],
)
async def test_refused(api: Api, body: dict[str, str], status: int, message: str) -> None:
    await api.run(name="web")
    await api("POST", "/containers/web/checkpoints", {"CheckpointID": "one"})
    reply = await api("POST", "/containers/web/checkpoints", body)
    assert (reply.status, message in reply.message) == (status, True)


async def test_what_is_not_there(api: Api) -> None:
    container = await api.create()
    path = f"/containers/{container}/checkpoints"
    assert (await api("POST", path, {"CheckpointID": "one"})).status == 409
    reply = await api("DELETE", f"{path}/none")
    assert reply.message == f"checkpoint none does not exist for container {container}"
    reply = await api("POST", f"/containers/{container}/start?checkpoint=none")
    assert (reply.status, "checkpoint none does not exist for container /" in reply.message) == (500, True)
    assert (await api("POST", f"/containers/{container}/start?checkpoint-dir=/tmp")).status == 403
    assert (await api("GET", "/containers/nobody/checkpoints")).status == 404
