"""Real software: nginx, redis, postgresql and a Python web app, pulled from a real registry by short name."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.system.harness import Docker, Host, Vch, eventually
from tests.system.images import publish

pytestmark = pytest.mark.system

APP = """
import http.server, psycopg2, redis
cache = redis.Redis(host="cache")
base = psycopg2.connect(host="base", user="postgres", dbname="postgres")
base.autocommit = True
cursor = base.cursor()
cursor.execute("create table if not exists hits (n int)")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        cursor.execute("insert into hits values (1)")
        cursor.execute("select count(*) from hits")
        body = f"{cache.incr('hits')} {cursor.fetchone()[0]}".encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(("", 8000), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def software(host: Host, registry: str, vch: Vch) -> Iterator[None]:
    names = ("nginx", "redis", "postgres", "python")
    for name in names:
        publish(host, registry, name)
        vch.docker("pull", name, timeout=300)
    yield
    vch.docker("rmi", *names)


@pytest.fixture
def docker(software: None, docker: Docker) -> Docker:
    return docker


def fetch(host: Host, url: str) -> str:
    script = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=10).read().decode())"
    return host.run(sys.executable, "-c", script, check=False).stdout.strip()


def test_nginx_from_the_host_from_a_neighbour_and_on_localhost(docker: Docker, host: Host) -> None:
    docker("network", "create", "front")
    docker("run", "--detach", "--name", "web", "--network", "front", "--publish", "8088:80", "nginx")
    eventually(lambda: fetch(host, "http://127.0.0.1:8088/") == "mooring says hello", "localhost answers")
    gateway = docker.out("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "front")
    assert fetch(host, f"http://{gateway}:8088/") == "mooring says hello"
    seen = docker.out("run", "--rm", "--network", "front", "busybox", "wget", "-qO-", "http://web/")
    assert seen == "mooring says hello"
    assert "GET / HTTP/1.1" in docker.out("logs", "web")
    docker("stop", "web")
    assert docker.out("inspect", "--format", "{{.State.ExitCode}}", "web") == "0"
    docker("rm", "web")
    docker("network", "rm", "front")


def test_redis_keeps_its_data_in_a_volume(docker: Docker) -> None:
    docker("volume", "create", "cachedata")

    def start() -> None:
        docker("run", "--detach", "--name", "cache", "--volume", "cachedata:/data", "redis")
        eventually(
            lambda: docker("exec", "cache", "redis-cli", "ping", check=False).stdout.strip() == "PONG",
            "redis answers",
        )

    start()
    docker("exec", "cache", "redis-cli", "set", "key", "value")
    docker("stop", "cache")
    docker("start", "cache")
    eventually(
        lambda: docker("exec", "cache", "redis-cli", "get", "key", check=False).stdout.strip() == "value",
        "the key survives a stop",
    )
    docker("exec", "cache", "redis-cli", "save")
    docker("rm", "--force", "cache")
    start()
    assert docker.out("exec", "cache", "redis-cli", "get", "key") == "value"
    docker("rm", "--force", "cache")
    docker("volume", "rm", "cachedata")


def test_postgres_and_a_web_app_by_name(docker: Docker, host: Host) -> None:
    docker("network", "create", "back")
    docker("volume", "create", "pg")

    def query(sql: str) -> str:
        return docker("exec", "base", "psql", "-h", "127.0.0.1", "-tAc", sql, check=False).stdout.strip()

    def start_base() -> None:
        docker("run", "--detach", "--name", "base", "--network", "back",
               "--volume", "pg:/var/lib/postgresql/data", "--memory", "512m", "postgres")  # fmt: skip
        eventually(lambda: query("select 1") == "1", "postgres answers", seconds=180)

    start_base()
    docker("run", "--detach", "--name", "cache", "--network", "back", "redis")
    docker("run", "--detach", "--name", "app", "--network", "back", "--publish", "8089:8000",
           "--restart", "on-failure", "python", "python3", "-c", APP)  # fmt: skip
    eventually(lambda: fetch(host, "http://127.0.0.1:8089/") != "", "the app answers", seconds=120)
    first = fetch(host, "http://127.0.0.1:8089/").split()
    assert first[0] == first[1]
    docker("rm", "--force", "app")
    docker("stop", "base")
    docker("rm", "base")
    start_base()
    assert int(query("select count(*) from hits")) == int(first[1])
    docker("rm", "--force", "--volumes", "base", "cache")
    docker("volume", "rm", "pg")
    docker("network", "rm", "back")
