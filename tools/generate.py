"""Generate the protobuf and gRPC modules from the .proto files, in place.

``--check`` fails when the committed modules are not what the sources give.
"""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {"tether/tether.proto": False, "portlayer/portlayer.proto": True}  # path -> has gRPC services


def generate(target: Path) -> list[Path]:
    """Write the modules below ``target`` and return their paths relative to it."""
    made: list[Path] = []
    include = str(files("grpc_tools").joinpath("_proto"))
    for source, grpc in SOURCES.items():
        stem = source.removesuffix(".proto")
        arguments = ["protoc", f"-I{ROOT}", f"-I{include}"]
        arguments += [f"--python_out={target}", f"--mypy_out=quiet:{target}"]
        made += [Path(f"{stem}_pb2.py"), Path(f"{stem}_pb2.pyi")]
        if grpc:
            arguments += [f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}"]
            made += [Path(f"{stem}_pb2_grpc.py"), Path(f"{stem}_pb2_grpc.pyi")]
        if protoc.main([*arguments, source]) != 0:
            raise SystemExit(f"protoc failed on {source}")
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        stale = [
            path
            for path in generate(Path(directory))
            if not (ROOT / path).exists()
            or not filecmp.cmp(ROOT / path, Path(directory) / path, shallow=False)
        ]
    for path in stale:
        print(f"{path} is not what its .proto gives: run `make generate`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
