"""The settings of the page as a command and as Python, ready to be pasted elsewhere."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scumble.serve.service import defaults

MASK = "mask.png"
"""How the page calls the mask when it is saved."""


@dataclass(frozen=True)
class Shared:
    """What is said to the command line or to the library."""

    content: str
    """The picture's file name."""
    target: str
    """The file to be written."""
    terms: Sequence[tuple[float, str]]
    """Weights and names of the library, or file names of pictures."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """See :data:`scumble.serve.service.OPTIONS`."""
    masked: bool = False
    """Whether a mask, saved as ``mask.png``, says where to paint."""

    @property
    def told(self) -> dict[str, Any]:
        """The settings that are not what they would be without saying so."""
        usual = defaults()
        return {name: value for name, value in self.settings.items() if value != usual[name]}


def command(shared: Shared) -> str:
    """As it would be typed into a shell."""
    words = ["scumble", "stylize", _path(shared.content)]
    if len(shared.terms) == 1:
        words += ["--style", _source(shared.terms[0][1])]
    else:
        words += ["--blend", ",".join(f"{_source(source)}={weight:g}" for weight, source in shared.terms)]
    if shared.masked:
        words += ["--mask", MASK]
    for name, value in shared.told.items():
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, "-o", _path(shared.target)])


def python(shared: Shared) -> str:
    """As it would be written into a program."""
    told = shared.told
    feather, invert = told.pop("feather", 0), told.pop("invert_mask", False)
    lines = ["import scumble", ""]
    content = _quoted(shared.content)
    if shared.masked:
        edge = (f", feather={feather:g}" if feather else "") + (", invert=True" if invert else "")
        lines[1:1] = ["from scumble.mask import Mask"]
        lines += [f"content = scumble.Picture.open({content})", f"mask = Mask.open({_quoted(MASK)}, content.size{edge})"]
        content = "content"
    style = _quoted(_source(shared.terms[0][1]))
    if len(shared.terms) > 1:
        lines += [f"style = {' + '.join(f'{weight:g} * {_style(source)}' for weight, source in shared.terms)}"]
        style = "style"
    options = [f"{name}={_quoted(value) if isinstance(value, str) else value}" for name, value in told.items()] + (
        ["mask=mask"] if shared.masked else []
    )
    call = ", ".join([content, style, *options])
    return "\n".join([*lines, f"scumble.stylize({call}).save({_quoted(shared.target)})"]) + "\n"


def _quoted(text: str) -> str:
    """As a literal of Python: what JSON allows within double quotes means the same there."""
    return json.dumps(text, ensure_ascii=False)


def _is_file(source: str) -> bool:
    """Names in the library have no dots."""
    return "." in source


def _path(name: str) -> str:
    """A file name that no program takes for an option."""
    return f"./{name}" if name.startswith("-") else name


def _source(source: str) -> str:
    return _path(source) if _is_file(source) else source


def _style(source: str) -> str:
    return f"scumble.Style.from_image({_quoted(source)})" if _is_file(source) else f"scumble.Style.named({_quoted(source)})"
