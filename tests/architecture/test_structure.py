"""The lines that hold the code's shape: imports, purity, file names, file lengths and the journey's links.

Everything is read from the source by AST; nothing of the product is imported.
"""

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import parse

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("gateway", "intake_service", "orchestrator_service", "adapter_service")
GRPC_SERVICES = SERVICES[1:]
PACKAGES = (*SERVICES, "chassis", "console", "simulator")
SERVICE_FILES = ("__init__.py", "__main__.py", "bootstrap.py")

# What a file may import beside the standard library.
PURE = {
    "intake_service/integration_request.py": set[str](),
    "orchestrator_service/retry.py": set[str](),
    "orchestrator_service/validation.py": {"jsonschema_rs", "msgspec"},
    "adapter_service/outcome.py": set[str](),
}

JOURNEY = (
    "gateway/routes.py",
    "intake_service/commands.py",
    "orchestrator_service/process.py",
    "adapter_service/servicer.py",
    "adapter_service/adapters/totvs_protheus.py",
)

LONGEST_FILE = 400
LONGEST_MEDIAN = 150

# The statements a module may consist of: they name things. A bare call, a loop or a `with` would do things at import.
NAMES_ONLY = (
    *(ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.Assign, ast.AnnAssign, ast.If),
)
# A bare call that declares something all the same: an index belongs to the table that its columns name.
DECLARATIONS = {"Index"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def written_by_hand() -> list[Path]:
    made = {"gen", ".venv", ".cache", "node_modules", "build"}
    return sorted(path for path in ROOT.rglob("*.py") if not made.intersection(path.relative_to(ROOT).parts))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def imported_packages(path: Path) -> set[str]:
    """Top-level packages that `path` imports anywhere, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(parse(path)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.partition(".")[0])
            case ast.ImportFrom(level=level) if level > 0:
                found.add(path.relative_to(ROOT).parts[0])
    return found


def forbidden_imports(folder: str, forbidden: set[str]) -> dict[str, set[str]]:
    found = {name(path): imported_packages(path) & forbidden for path in sources(folder)}
    return {path: packages for path, packages in found.items() if packages}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_of_the_layout_exists(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_no_other_service(service: str) -> None:
    assert forbidden_imports(service, {*SERVICES, "console", "simulator"} - {service}) == {}


@pytest.mark.parametrize("package", ["chassis", "simulator"])
def test_what_is_below_the_services_imports_none_of_them(package: str) -> None:
    assert forbidden_imports(package, {*SERVICES, "console", "simulator"} - {package}) == {}


def test_the_product_imports_no_tests_and_no_tools() -> None:
    assert {package: forbidden_imports(package, {"tests", "tools", "bench", "pytest"}) for package in SERVICES} == {
        package: {} for package in SERVICES
    }


@pytest.mark.parametrize("path", PURE)
def test_a_pure_file_imports_the_standard_library_only(path: str) -> None:
    assert imported_packages(ROOT / path) - sys.stdlib_module_names <= PURE[path]


@pytest.mark.parametrize("service", SERVICES)
def test_only_the_entry_point_knows_the_composition_root(service: str) -> None:
    users = {
        name(path)
        for path in sources(service)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom)
        and (node.module == f"{service}.bootstrap" or (node.module == service and "bootstrap" in names_of(node)))
    }

    assert users == {f"{service}/__main__.py"}


def names_of(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_file_names(service: str) -> None:
    wanted = {*SERVICE_FILES, *(["servicer.py"] if service in GRPC_SERVICES else [])}

    assert wanted - {path.name for path in (ROOT / service).glob("*.py")} == set()


#: Run as programs, never imported: by `python -m`, and by alembic.
ENTRY_POINTS = ("__main__.py", "env.py")


@pytest.mark.parametrize("package", [*SERVICES, "chassis", "simulator"])
def test_importing_a_module_does_nothing(package: str) -> None:
    acts = {
        f"{name(path)}:{node.lineno}"
        for path in sources(package)
        if path.name not in ENTRY_POINTS
        for node in deeds(path)
    }

    assert acts == set()


def deeds(path: Path) -> Iterator[ast.stmt]:
    """Yield the module-level statements of `path` that act or read the environment."""
    for node in parse(path).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        names_something = is_docstring or isinstance(node, NAMES_ONLY) or is_declaration(node)
        if not names_something or (isinstance(node, ast.Assign | ast.AnnAssign) and reads_environment(node)):
            yield node


def is_declaration(node: ast.stmt) -> bool:
    match node:
        case ast.Expr(value=ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called))):
            return called in DECLARATIONS
    return False


def reads_environment(node: ast.stmt) -> bool:
    attributes = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    return not attributes.isdisjoint({"environ", "getenv"})


def test_no_file_is_longer_than_its_limit() -> None:
    assert {name(path): lines(path) for path in written_by_hand() if lines(path) > LONGEST_FILE} == {}


def test_the_median_module_fits_in_a_few_screens() -> None:
    lengths = [count for path in sources(*PACKAGES) if (count := lines(path)) > 0]

    assert statistics.median(lengths) <= LONGEST_MEDIAN


@pytest.mark.parametrize(("step", "path"), list(enumerate(JOURNEY, start=1)))
def test_a_journey_file_says_where_it_stands(step: int, path: str) -> None:
    docstring = ast.get_docstring(parse(ROOT / path)) or ""

    assert f"Journey {step}/{len(JOURNEY)}" in docstring


def test_the_journey_page_links_its_files_in_order() -> None:
    page = ROOT / "docs" / "journey.md"
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    linked = [name(file) for file in ((page.parent / target).resolve() for target in targets) if file.is_file()]

    assert list(dict.fromkeys(path for path in linked if path in JOURNEY)) == list(JOURNEY)
