"""The house's import rules (docs/architecture.md): arrows point down only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"tether", "portlayer", "engine", "machine", "imagebuild", "vch", "archive"}
ALLOWED: dict[str, tuple[str, ...]] = {
    "tether": ("archive",),
    "portlayer": (
        "tether.wire",
        "tether.session",
        "tether.journal",
        "tether.users",
        "tether.tether_pb2",
        "archive",
        "vch",
    ),
    "engine": (
        "portlayer.portlayer_pb2",
        "portlayer.portlayer_pb2_grpc",
        "tether.tether_pb2",
        "vch",
    ),
    "machine": ("portlayer.hypervisor", "vch"),
    "imagebuild": (),
    "vch": (),
    "archive": (),
}


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            assert node.module is not None
            if node.module in OURS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def is_allowed(importer: str, module: str) -> bool:
    package = module.split(".", maxsplit=1)[0]
    if package not in OURS or package == importer:
        return True
    return any(module == rule or module.startswith(f"{rule}.") for rule in ALLOWED[importer])


@pytest.mark.parametrize("package", sorted(OURS))
def test_package_imports_only_what_the_house_allows(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if "_pb2" not in path.name
        for module in imported_modules(path)
        if not is_allowed(package, module)
    ]
    assert wrong == []


@pytest.mark.parametrize("package", sorted(OURS - {"machine"}))
def test_only_command_lines_read_argv_and_environment(package: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name not in ("__main__.py", "init.py")
        and any(word in path.read_text() for word in ("sys.argv", "os.environ", "os.getenv"))
    ]
    assert wrong == []
