"""What is asked for: from a request's fields and files to an order, and from that to a painted file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from scumble._formats import FORMATS, check_sides, format_named
from scumble.errors import InputError, UsageError, unknown
from scumble.mask import Mask
from scumble.picture import Picture, fitted_size
from scumble.recipe import parse_blend
from scumble.serve.limits import IsFilmError, Upload, opened
from scumble.serve.service import OPTIONS, PaintService, defaults, named
from scumble.stylizer import METHODS, QUALITIES, STYLE_FITS
from scumble.tiling import DETAILS, STATISTICS

MEDIA = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff", "BMP": "image/bmp", "GIF": "image/gif",
    "AVIF": "image/avif", "HEIF": "image/heic",
}  # fmt: skip
FILMS = {"mp4": "video/mp4", "webm": "video/webm", "mkv": "video/x-matroska", "mov": "video/quicktime", "gif": "image/gif"}
"""What a film can become, and what it is called then."""
OF_FILMS = ("strength", "method", "style_scale", "keep_color", "grain", "size")
"""Settings that films have, too."""
MOST_PARTS = 64
"""Files, and as many fields, in one request."""
MOST_MASKS = 8
"""Masks, and as many styles, in one request: all masks of a picture are in memory at the same time."""

MOST_TEXT = 1_000_000
"""Bytes of a field that is no file."""

_URLENCODED = (
    "application/x-www-form-urlencoded holds no picture; send Content-Type: image/jpeg (or another image type) with the picture as the "
    "body, or multipart/form-data with the picture as the part content"
)
_NO_FORM = "the body is no whole multipart/form-data form, each part with a name; send it as curl -F does"
_FORMS = {
    "Missing boundary": "multipart/form-data needs a boundary in the Content-Type; leave that header to the client, as curl -F does",
    "Too many": f"there may be {MOST_PARTS} files and as many fields in a form; send less",
    "Part exceeded": f"a field of a form may have {MOST_TEXT:,} bytes; send pictures as files, each with a file name",
}
"""What the framework says of a form, by its beginning, and what we do."""

_DASHED = re.compile("|".join(name.replace("_", "-") for name in OPTIONS if "_" in name))
"""Options as the command line, and with it the library's sentences, write them."""

Source = str | Upload


def _known(minimum: float, maximum: float) -> dict[str, Any]:
    # for readers of the schema alone: the rules are the Stylizer's, which the service asks; a test holds both together
    return {"minimum": minimum, "maximum": maximum}


_DEFAULTS = defaults()
_NUMBER: dict[str, Any] = {"ge": -(10**9), "le": 10**9}
"""For whole numbers: what has a thousand digits is no number to reckon with. What is allowed is narrower, and the Stylizer's to say."""


class Options(BaseModel):
    """The options of a painting, as fields of the form or of the query."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    strength: float = Field(_DEFAULTS["strength"], description="0 is the input, 1 the style as it is.", json_schema_extra=_known(0, 2))
    method: str = Field(_DEFAULTS["method"], description="How it is painted.", json_schema_extra={"enum": list[Any](METHODS)})
    style_scale: float | None = Field(
        _DEFAULTS["style_scale"], description="Width of the brush relative to the picture.", json_schema_extra=_known(0.25, 4)
    )
    style_fit: str = Field(
        _DEFAULTS["style_fit"],
        description="The style's picture in its own shape, or stretched to that of the content first.",
        json_schema_extra={"enum": list[Any](STYLE_FITS)},
    )
    keep_color: float = Field(_DEFAULTS["keep_color"], description="How much of the input's colours stays.", json_schema_extra=_known(0, 1))
    keep_light: float = Field(
        _DEFAULTS["keep_light"],
        description="How much what is light in the input is light in the painting, in the style's own range: for faces and letters.",
        json_schema_extra=_known(0, 1),
    )
    grain: float = Field(
        _DEFAULTS["grain"],
        description="Strokes for what is flat: 1 as a photograph's noise makes them, 0 none, as is usual for films.",
        json_schema_extra=_known(0, 4),
    )
    quality: str = Field(
        _DEFAULTS["quality"],
        description="draft is one pass, good a second after a look at it; fine and best go on to optimise.",
        json_schema_extra={"enum": list[Any](QUALITIES)},
    )
    steps: int | None = Field(
        _DEFAULTS["steps"], **_NUMBER, description="Steps of that, in place of quality.", json_schema_extra={"minimum": 0}
    )
    encoder: str = Field(
        _DEFAULTS["encoder"],
        max_length=200,
        description="In whose features a refinement is measured: eye, or what else this service offers, such as vgg19:relu4_1; "
        "then the style is one picture.",
    )
    size: int | None = Field(
        _DEFAULTS["size"], **_NUMBER, description="The longer side of the result, in pixels.", json_schema_extra={"minimum": 1}
    )
    detail: str | None = Field(
        _DEFAULTS["detail"],
        description="What is finer than a large picture's reduced size: the content's own, or painted.",
        json_schema_extra={"enum": [None, *DETAILS]},
    )
    statistics: str = Field(
        _DEFAULTS["statistics"],
        description="For tiles: those of the reduced picture, or exact.",
        json_schema_extra={"enum": list[Any](STATISTICS)},
    )
    feather: float = Field(_DEFAULTS["feather"], description="Soften the masks' edges, in pixels.", json_schema_extra=_known(0, 10_000))
    invert_mask: bool = Field(_DEFAULTS["invert_mask"], description="Black is painted, white stays.")
    style: list[str] = Field([], description="A name of the library, or (as a part of a form) a picture; repeated: one for each mask.")
    blend: str | None = Field(None, description="Several styles in one, as in great-wave=0.7,irises=0.3.")
    weights: str | None = Field(None, description="One number for each style, as in 0.7,0.3: they are blended into one.")
    format: str | None = Field(None, description="What the result shall be, as in png; else Accept decides, else it is as the input.")


class FilmOptions(Options):
    """With those that films have besides."""

    steady: float | None = Field(
        None, description="Films: how much of each frame is carried over; by default as usual.", json_schema_extra=_known(0, 1)
    )


@dataclass(frozen=True)
class Order:
    """What is to be painted, and how."""

    content: Upload
    styles: Sequence[Sequence[tuple[float, Source]]]
    masks: Sequence[Upload]
    settings: Mapping[str, Any]
    format: str | None = None
    """A key of FORMATS or FILMS; None is as the input."""
    steady: float | None = None
    """Of films; None is as usual."""


async def read_order(request: Request, model: type[Options]) -> Order:
    """The order in a form (``content``, ``style``, ``mask`` as files), or in a raw body with the options in the query.

    UsageError or InputError for one that can't be meant; styles and settings are not looked at yet.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    fields: dict[str, Any] = {}
    files: dict[str, list[Upload]] = {}
    _collect(request.query_params.multi_items(), fields)
    if kind == "application/x-www-form-urlencoded":  # curl says so of any --data, a picture too, and a form of this kind holds no file
        async for _ in request.stream():  # who still sends does not read the answer
            pass
        raise HTTPException(400, _URLENCODED)
    if kind == "multipart/form-data":
        try:
            async with request.form(max_files=MOST_PARTS, max_fields=MOST_PARTS, max_part_size=MOST_TEXT) as form:
                files = await _read_files(form)
                _collect([(name, value) for name, value in form.multi_items() if isinstance(value, str)], fields)
        except HTTPException as error:
            if error.status_code != 400:  # the guard's, of an upload that is too large or does not come
                raise
            said = next((ours for theirs, ours in _FORMS.items() if str(error.detail).startswith(theirs)), _NO_FORM)
            raise HTTPException(400, said) from error
    else:
        files["content"] = [Upload("", await request.body())]
    for name in files:
        if name not in ("content", "style", "mask"):
            raise UsageError(unknown("part", name, ("content", "style", "mask")))
    for name in ("content", "mask"):
        if name in fields:
            raise UsageError(f"{name} must be a file, and a text came; with curl that is -F {name}=@FILE, with the @")
    contents = files.get("content", [])
    if len(contents) != 1 or not contents[0].data:
        got = "an empty one" if len(contents) == 1 else f"{len(contents)} of them"
        raise UsageError(f"send one picture, as the body or as the part called content; got {got}")
    try:
        options = model.model_validate(fields)
    except ValidationError as error:
        raise UsageError(_sentence(error)) from error
    settings = {name: value for name, value in options.model_dump(exclude_unset=True).items() if name in OPTIONS}
    styles, masks = _styles(options, files.get("style", [])), files.get("mask", [])
    for what, count in (("styles", sum(map(len, styles))), ("masks", len(masks))):
        if count > MOST_MASKS:
            raise UsageError(f"there may be {MOST_MASKS} {what} in a request; got {count}: send less, or paint in several goes")
    return Order(
        contents[0],
        styles,
        masks,
        settings,
        options.format,
        getattr(options, "steady", None),
    )


async def _read_files(form: FormData) -> dict[str, list[Upload]]:
    files: dict[str, list[Upload]] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.setdefault(name, []).append(Upload((value.filename or "")[:255], await value.read()))
    return files


def _collect(items: Sequence[tuple[str, Any]], fields: dict[str, Any]) -> None:
    for name, value in items:
        if name == "style":
            fields.setdefault(name, []).append(value)
        elif name in fields:
            raise UsageError(f"{name[:40]!r} is given twice")
        else:
            fields[name] = value


def _styles(options: Options, pictures: Sequence[Upload]) -> list[list[tuple[float, Source]]]:
    """Names first, then pictures; one style each, or with weights or ``blend`` all in one."""
    sources: list[Source] = [*options.style, *pictures]
    if options.blend is not None:
        if sources or options.weights is not None:
            raise UsageError("give styles, or several in one with blend, not both")
        return [[(weight, named(name).name) for weight, name in parse_blend(options.blend)]]
    # a text is a name: one that were taken for a path would read the server's files
    sources = [named(source).name if isinstance(source, str) else source for source in sources]
    if options.weights is None:
        return [[(1.0, source)] for source in sources]
    try:
        weights = [float(weight) for weight in options.weights.split(",")]
    except ValueError:
        raise UsageError(f"weights are numbers with commas between, as in 0.7,0.3; got {options.weights[:80]!r}") from None
    if len(weights) != len(sources):
        raise UsageError(f"there must be one weight for each style; got {len(weights)} weights and {len(sources)} styles")
    return [list(zip(weights, sources, strict=True))]


_WANTED = {"float": "a number", "finite": "a number", "int": "a whole number", "bool": "true or false"}
"""By the beginning of what pydantic calls the mistake."""


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "the request"
    if first["type"] == "extra_forbidden":
        if name in FilmOptions.model_fields:
            return f"{name} is for films, and films are jobs; send the film to POST /v1/jobs"
        return unknown("option", name[:40], tuple(FilmOptions.model_fields))
    wanted, given = _WANTED.get(first["type"].partition("_")[0]), f"; got {str(first['input'])[:40]!r}"
    if wanted is None:
        message = first["msg"]
        return f"{name}: {message[:1].lower()}{message[1:]}{given}"
    field = FilmOptions.model_fields[name].json_schema_extra
    known = field if isinstance(field, dict) else {}
    low, high = known.get("minimum"), known.get("maximum")
    between = "" if low is None else f" of {low} or more" if high is None else f" between {low} and {high}"
    return f"{name} must be {wanted}{between}{given}"


def wanted_format(order: Order, accept: str, own: str | None) -> str:
    """A key of FORMATS: what the order asks for, else the best that ``accept`` (a header) allows, else as the content.

    UsageError for an unknown format, NotAcceptableError if nothing that is accepted can be made.
    """
    if order.format in FILMS and order.format != "gif":
        raise UsageError(f"the format {order.format} is for films, and films are jobs; send the film to POST /v1/jobs")
    if order.format is not None:
        return format_named(order.format)
    own = own or "PNG"
    best: tuple[float, int, str] | None = None
    for place, part in enumerate((accept or "*/*").split(",")):
        media, *parameters = (text.strip().lower() for text in part.split(";"))
        quality = next((_number(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        exact = next((key for key, name in MEDIA.items() if name == media), None)
        key = own if media in ("*/*", "image/*", MEDIA[own]) else exact
        if key is not None and quality > 0 and (best is None or (quality, -place) > best[:2]):
            best = (quality, -place, key)
    if best is None:
        raise NotAcceptableError(f"the result can be {', '.join(MEDIA.values())}; got Accept: {accept[:80]}")
    return best[2]


class NotAcceptableError(InputError):
    """None of the formats that the client accepts can be made."""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def decoded(upload: Upload, part: str, max_pixels: int) -> Picture:
    """The picture in an upload; an InputError says which part of the request it is."""
    try:
        return opened(upload.data, max_pixels)
    except IsFilmError as error:
        advice = "; send it to POST /v1/jobs with a file name such as film.mp4 or a format such as mp4" if part == "content" else ""
        raise InputError(f"{part}: {error}{advice}") from error
    except InputError as error:
        raise InputError(f"{part}: {error}") from error


def check(service: PaintService, order: Order) -> None:
    """Raise what painting would raise about the styles and settings of ``order``."""
    for terms in order.styles:
        for _, source in terms:
            if isinstance(source, Upload):
                _named_errors(service, source)
    try:
        service.check(order.styles, order.settings, len(order.masks))
    except UsageError as error:
        raise UsageError(_DASHED.sub(lambda name: name[0].replace("-", "_"), str(error))) from error


def _named_errors(service: PaintService, source: Upload) -> None:
    try:
        service.style(source)
    except InputError as error:
        raise InputError(f"style: {error}") from error


def finished(service: PaintService, order: Order, accept: str, **calls: Any) -> tuple[bytes, str, Picture]:
    """Decode, paint, encode: the file's bytes with the recipe in it, the key of its format, and the picture.

    ``calls`` are those of :meth:`~scumble.serve.service.PaintService.painted`. For a thread that holds a worker.
    """
    limit = service.settings.max_pixels
    check(service, order)
    content = decoded(order.content, "content", limit)
    key = wanted_format(order, accept, content.metadata.format)
    check_sides(key, *fitted_size(*content.size, order.settings.get("size")), "ask for PNG or TIFF")
    masks = [Mask.from_picture(decoded(mask, "mask", limit)) for mask in order.masks]
    painted = service.painted(content, order.styles, order.settings, masks=masks, **calls)
    cancel = calls.get("cancel")
    cut = {"interrupted": True} if cancel is not None and cancel.is_set() and service.refines(order.settings) else {}
    recipe = service.recipe(order.content, order.styles, order.settings, order.masks, **cut)
    return painted.encode(key, recipe=recipe), key, painted


def to_json(order: Order) -> tuple[str, dict[str, bytes]]:
    """The order as a text, and the files beside it by the names that the text has for them."""
    files: dict[str, bytes] = {}

    def filed(upload: Upload, name: str) -> dict[str, str]:
        files[name] = upload.data
        return {"file": name, "name": upload.name}

    styles = [
        [[weight, source if isinstance(source, str) else filed(source, f"style-{i}-{j}")] for j, (weight, source) in enumerate(terms)]
        for i, terms in enumerate(order.styles)
    ]
    whole = {
        "content": filed(order.content, "content"),
        "styles": styles,
        "masks": [filed(mask, f"mask-{i}") for i, mask in enumerate(order.masks)],
        "settings": dict(order.settings),
        "format": order.format,
        "steady": order.steady,
    }
    return json.dumps(whole), files


def from_json(text: str, read: Any) -> Order:
    """What :func:`to_json` made; ``read`` gives the bytes of a file by its name."""
    whole = json.loads(text)

    def upload(entry: Mapping[str, str]) -> Upload:
        return Upload(entry["name"], read(entry["file"]))

    styles = [[(weight, s if isinstance(s, str) else upload(s)) for weight, s in terms] for terms in whole["styles"]]
    return Order(upload(whole["content"]), styles, [upload(m) for m in whole["masks"]], whole["settings"], whole["format"], whole["steady"])


def suffix(key: str) -> str:
    """Of a file in the format ``key``."""
    return FORMATS[key].suffixes[0]
