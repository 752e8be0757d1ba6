"""docker-py as people use it. ``full`` in argv: everything; else what a transport could break."""

import io
import os
import socket
import sys
import tarfile

import docker
import docker.errors
import docker.types

client = (
    docker.from_env(timeout=120, use_ssh_client=True)
    if "ssh" in os.environ["DOCKER_HOST"]
    else docker.from_env(timeout=120)
)
assert client.ping() is True
assert client.version()["ApiVersion"] == "1.50"


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def of_a_transport() -> None:
    assert client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], remove=True) == b"out\n"
    try:
        client.containers.run("busybox", ["sh", "-c", "exit 3"], remove=True)
    except docker.errors.ContainerError as error:
        assert error.exit_status == 3
    else:
        raise AssertionError("no ContainerError")


def of_all() -> None:
    events = client.events(decode=True, filters={"type": "container", "event": ["start", "die"]})
    network = client.networks.create("net", driver="bridge", labels={"who": "docker-py"})
    volume = client.volumes.create("vol", labels={"who": "docker-py"})
    assert [item.name for item in client.volumes.list(filters={"label": "who=docker-py"})] == ["vol"]
    assert [item.name for item in client.networks.list(names=["net"])] == ["net"]
    box = client.containers.create(
        "busybox",
        ["sh", "-c", "echo started; cat"],
        name="box",
        stdin_open=True,
        network="net",
        volumes={"vol": {"bind": "/data", "mode": "rw"}},
        environment=["A=1"],
        labels={"a": "b"},
        mem_limit="128m",
        ports={"8080/tcp": ("127.0.0.1", None)},
        healthcheck={"test": ["CMD", "true"], "interval": 10**9},
        ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=200)],
    )
    attached = box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    box.start()
    raw = attached._sock
    seen = b""
    while b"started" not in seen:
        seen += raw.recv(4096)
    raw.sendall(b"through\n")
    while b"through" not in seen:
        seen += raw.recv(4096)
    assert tuple(box.exec_run(["sh", "-c", "echo $A; ulimit -n"])) == (0, b"1\n100\n")
    assert box.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True).output == (b"o\n", b"e\n")
    assert box.exec_run(["sh", "-c", "exit 4"]).exit_code == 4
    assert b"".join(box.exec_run(["seq", "3"], stream=True).output) == b"1\n2\n3\n"
    assert box.put_archive("/data", archive(hello="there")) is True
    chunks, found = box.get_archive("/data/hello")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.extractfile("hello").read() == b"there"  # type: ignore[union-attr]
    assert found["size"] == 5
    box.reload()
    assert (box.status, box.attrs["HostConfig"]["Memory"]) == ("running", 128 << 20)
    assert box.attrs["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"].isdigit()
    assert box.stats(stream=False)["memory_stats"]["usage"] > 0
    assert any("cat" in " ".join(row) for row in box.top()["Processes"])
    assert [item.name for item in client.containers.list(filters={"label": "a=b"})] == ["box"]
    lines = box.logs(stream=True, follow=True)
    assert next(lines).startswith(b"started")
    raw.shutdown(socket.SHUT_WR)
    assert box.wait(timeout=60)["StatusCode"] == 0
    assert box.logs(tail=1) == b"through\n"
    seen_events = [next(events)["Action"], next(events)["Action"]]
    assert seen_events == ["start", "die"], seen_events
    events.close()
    attached.close()
    image = client.images.get("busybox")
    assert image.tag("copy", "v1") is True
    assert "copy:v1" in client.images.get("copy:v1").tags
    client.images.remove("copy:v1")
    box.rename("crate")
    box.remove(v=True)
    volume.remove()
    network.remove()
    assert client.df()["Containers"] == []
    for missing in (client.containers.get, client.images.get, client.networks.get, client.volumes.get):
        try:
            missing("nothing")
        except docker.errors.NotFound:
            continue
        raise AssertionError(f"{missing} found nothing")


of_a_transport()
if "full" in sys.argv:
    of_all()
client.close()
print("ok")
