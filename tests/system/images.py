"""Images of real software, built from Debian packages (never from a public registry).

An image is one or two layers: the package closure of ``base``, unpacked without
running maintainer scripts, and what a recipe adds. Built once per machine into
the project's cache, then pushed to the test registry with skopeo.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.harness import ROOT, Host, run

# extract installs nothing by itself, not even what Debian calls essential
BASE = ("base-files", "base-passwd", "coreutils", "dash", "grep", "libc-bin", "sed", "procps")
CACHE = ROOT / ".cache" / "images"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    packages: tuple[str, ...]
    script: str = ""  # sh, run with the new root as working directory
    config: dict[str, object] = field(default_factory=dict)

    @property
    def key(self) -> str:
        words = [self.packages, self.script, self.config]
        return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:16]


RECIPES = {
    "nginx": Recipe(
        packages=("nginx-light",),
        script=r"""
            mkdir -p var/www/html var/lib/nginx var/log/nginx run
            echo 'mooring says hello' > var/www/html/index.html
            cat > etc/nginx/nginx.conf <<'END'
            user www-data;
            worker_processes 1;
            error_log /dev/stderr notice;
            pid /run/nginx.pid;
            events { worker_connections 256; }
            http {
              access_log /dev/stdout;
              server { listen 80; root /var/www/html; }
            }
END
        """,
        config={
            "Cmd": ["nginx", "-g", "daemon off;"],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        },
    ),
    "redis": Recipe(
        packages=("redis-server",),
        script="mkdir -p data && chmod 777 data",
        config={
            "Cmd": ["redis-server", "--dir", "/data", "--bind", "0.0.0.0", "--protected-mode", "no"],
            "WorkingDir": "/data",
            "ExposedPorts": {"6379/tcp": {}},
            "Volumes": {"/data": {}},
        },
    ),
    "postgres": Recipe(
        packages=("postgresql-15",),
        script=r"""
            echo 'postgres:x:999:999::/var/lib/postgresql:/bin/sh' >> etc/passwd
            echo 'postgres:x:999:' >> etc/group
            mkdir -p var/lib/postgresql/data run/postgresql usr/local/bin
            rm -rf var/run && ln -s /run var/run
            chown -R 999:999 var/lib/postgresql run/postgresql
            chmod 700 var/lib/postgresql/data
            cat > usr/local/bin/start-postgres <<'END'
#!/bin/sh
set -e
export PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/var/lib/postgresql/data
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --auth=trust --no-sync >/dev/null
  echo "host all all all trust" >> "$PGDATA/pg_hba.conf"
  echo "listen_addresses='*'" >> "$PGDATA/postgresql.conf"
fi
exec postgres
END
            chmod 755 usr/local/bin/start-postgres
        """,
        config={
            "Cmd": ["start-postgres"],
            "User": "postgres",
            "Env": ["PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin"],
            "Volumes": {"/var/lib/postgresql/data": {}},
            "StopSignal": "SIGINT",
            "ExposedPorts": {"5432/tcp": {}},
        },
    ),
    "python": Recipe(
        packages=("python3", "python3-psycopg2", "python3-redis"),
        config={"Cmd": ["python3"]},
    ),
}


def build(name: str) -> Path:
    """The image as an OCI layout directory (tag ``latest``), from the cache when it is there."""
    recipe = RECIPES[name]
    layout = CACHE / f"{name}-{recipe.key}"
    if layout.exists():
        return layout
    CACHE.mkdir(parents=True, exist_ok=True)
    work = CACHE / f".new-{name}-{recipe.key}"
    run("rm", "-rf", work)
    root = work / "root"
    root.mkdir(parents=True)
    packages = ",".join((*BASE, *recipe.packages))
    run(
        "mmdebstrap",
        "--quiet",
        "--variant=extract",
        "--mode=root",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        f"--include={packages}",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "bookworm",
        root,
        timeout=600,
    )
    accounts = root / "etc/passwd"
    if not accounts.exists():  # base-passwd's maintainer script would have copied them
        (root / "etc/passwd").write_bytes((root / "usr/share/base-passwd/passwd.master").read_bytes())
        (root / "etc/group").write_bytes((root / "usr/share/base-passwd/group.master").read_bytes())
    if recipe.script:
        run("sh", "-e", "-c", recipe.script, cwd=root)
    oci = work / "oci"
    _write_layout(root, oci, recipe)
    oci.rename(layout)
    run("rm", "-rf", work)
    return layout


def _write_layout(root: Path, oci: Path, recipe: Recipe) -> None:
    blobs = oci / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    tar = oci / "layer.tar"
    run(
        "tar",
        "--create",
        "--file",
        tar,
        "--sort=name",
        "--mtime=@0",
        "--numeric-owner",
        "--xattrs",
        "--exclude=./dev/*",
        "-C",
        root,
        ".",
    )
    diff_id = _digest(tar)
    with (oci / "layer.tar.gz").open("wb") as output:
        subprocess.run(["gzip", "-n", "-1", "-c", tar], stdout=output, check=True)
    tar.unlink()
    layer = _blob(oci / "layer.tar.gz", blobs)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Env": [PATH], **recipe.config},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": " ".join(recipe.packages)}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **_document(config, blobs)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **layer}],
    }
    entry = {"mediaType": manifest["mediaType"], **_document(manifest, blobs)}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (oci / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (oci / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _document(document: object, blobs: Path) -> dict[str, object]:
    path = blobs / ".document"
    path.write_text(json.dumps(document))
    return _blob(path, blobs)


def _blob(path: Path, blobs: Path) -> dict[str, object]:
    digest, size = _digest(path), path.stat().st_size
    path.rename(blobs / digest.removeprefix("sha256:"))
    return {"digest": digest, "size": size}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def publish(host: Host, registry: str, name: str) -> None:
    """Put image ``name`` into the registry under ``library/``, where short names are looked for."""
    copy = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false"]
    host.run(*copy, f"oci:{build(name)}:latest", f"docker://{registry}/library/{name}:latest", timeout=300)
