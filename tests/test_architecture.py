"""What holds for the whole of the package: floors, the border around torch, weights, docstrings."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import scumble
from scumble import weights

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "scumble"
FILES = sorted(SOURCE.rglob("*.py"))
OPTIONAL = ("nets", "train", "serve", "cluster")  # parts behind an extra
CORE = sorted(
    ".".join(("scumble", *f.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for f in FILES
    if f.relative_to(SOURCE).parts[0] not in OPTIONAL and f.name != "__main__.py"
)


def python(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_imports_go_down_only():
    pytest.importorskip("importlinter", reason="needs import-linter: pip install 'scumble[dev]'")
    done = python("import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_itself_is_light():
    done = python("import sys, scumble; print(*sorted({'numpy', 'PIL', 'onnxruntime', 'typer', 'torch'} & set(sys.modules)))")
    assert done.stdout.strip() == "", done.stderr


def test_core_modules_load_neither_torch_nor_other_extras():
    # one process for all: none of them may, so neither may all together
    heavy = {"torch", "onnx", "onnxruntime", "tifffile", "imagecodecs", "pillow_heif", "scipy", "skimage"}
    done = python(f"import sys, importlib; [importlib.import_module(m) for m in {CORE}]; print(*sorted({heavy} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_all_names_of_the_front_door_exist():
    for name in scumble.__all__:
        assert getattr(scumble, name) is not None
    with pytest.raises(AttributeError, match="stylise"):
        scumble.stylise  # noqa: B018


def test_the_manifest_is_of_these_weights():
    assert weights.damaged() == []
    on_disk = {p.name for p in weights.FOLDER.iterdir() if p.suffix in (".onnx", ".safetensors")}
    assert on_disk == set(weights.manifest())


def test_manifest_entries_are_complete():
    for w in weights.manifest().values():
        assert w.bytes == (weights.FOLDER / w.name).stat().st_size
        assert w.licence
        assert w.origin


def test_weights_are_small():
    assert sum(p.stat().st_size for p in weights.FOLDER.rglob("*") if p.suffix in (".onnx", ".safetensors")) <= 25e6


def public(tree, methods):
    """Public functions and classes of a module; with ``methods`` also those of its public classes, but for properties."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
        if methods and isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            functions = (m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_"))
            yield from (m for m in functions if all(getattr(d, "id", "") != "property" for d in m.decorator_list))


@pytest.mark.parametrize("path", [f for f in FILES if not f.name.startswith("_")], ids=lambda f: str(f.relative_to(SOURCE)))
def test_what_is_public_is_documented(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    framework = path.relative_to(SOURCE).parts[0] in ("nets", "train", "cli")  # their methods have names that PyTorch and Click give them
    bare = [f"{node.name} (line {node.lineno})" for node in public(tree, methods=not framework) if not ast.get_docstring(node)]
    assert not bare


@pytest.mark.parametrize("path", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_pictures_are_opened_in_one_place(path):
    # train/ decodes training pictures by the ten thousand and wants neither profiles nor metadata of them
    if path.name == "picture.py" or path.relative_to(SOURCE).parts[0] in ("_formats", "train"):
        return
    used = (n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Attribute) and n.attr == "open")
    opened = [n.lineno for n in used if isinstance(n.value, ast.Name) and n.value.id == "Image"]
    assert not opened, f"Image.open at line {opened}: pictures are opened by Picture.open"
