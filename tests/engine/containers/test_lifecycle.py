"""start, stop, kill, pause, restart, wait and rm over the API."""

from __future__ import annotations

from tests.engine.conftest import Api
from tests.engine.fake.state import FakeHost


async def test_created_container_starts_runs_and_stops(api: Api, host: FakeHost) -> None:
    container = await api.create(["sleep"], "web")
    shown = (await api("GET", f"/containers/{container}/json")).json
    assert (shown["State"]["Status"], shown["State"]["StartedAt"]) == ("created", "0001-01-01T00:00:00Z")
    assert (await api("POST", "/containers/web/start")).status == 204
    assert (await api("POST", "/containers/web/start")).status == 304
    assert (await api("GET", "/containers/web/json")).json["State"]["Running"] is True
    assert (await api("POST", "/containers/web/stop")).status == 204
    assert (await api("POST", "/containers/web/stop")).status == 304
    shown = (await api("GET", "/containers/web/json")).json
    assert (shown["State"]["Status"], shown["State"]["ExitCode"]) == ("exited", 143)
    assert (await api("DELETE", "/containers/web")).status == 204
    assert (await api("GET", "/containers/web/json")).message == "No such container: web"
    assert host.machines == {}
