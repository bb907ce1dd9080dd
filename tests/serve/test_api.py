import io
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from scumble.errors import UsageError
from scumble.picture import Picture, read_recipe
from scumble.serve.settings import Settings
from scumble.stylizer import Stylizer

orders = pytest.importorskip("scumble.serve.orders", reason="needs the extra serve: pip install 'scumble[serve]'")
httpx = pytest.importorskip("httpx", reason="needs httpx: pip install 'scumble[dev]'")

MAX_PIXELS = 100_000


@pytest.fixture(scope="module")
def url(serving, tmp_path_factory):
    settings = Settings(data=tmp_path_factory.mktemp("api"), page=False, queue=8, per_client=500, max_pixels=MAX_PIXELS, max_body=2_000_000)
    with serving(settings) as found:
        yield found


@pytest.fixture(scope="module")
def http(url):
    with httpx.Client(base_url=url, timeout=120) as client:
        yield client


def form(content, *more, name="photo.jpg", **fields):
    return {"files": [("content", (name, content)), *more], "data": fields}


def test_a_form_is_painted_as_the_library_paints(http, photo):
    answer = http.post("/v1/stylize", **form(photo, style="great-wave", strength="0.8"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    painted = Stylizer(threads=Settings().threads)(Picture.open(photo), "great-wave", strength=0.8)
    assert np.abs(Picture.open(answer.content).pixels - painted.pixels).mean() < 4 / 255, "a JPEG's loss, no more"


def test_a_bare_picture_is_painted_just_so(http, photo):
    by_form = http.post("/v1/stylize", **form(photo, style="irises"), headers={"accept": "image/png"})
    bare = http.post("/v1/stylize", params={"style": "irises"}, content=photo, headers={"accept": "image/png"})
    assert np.array_equal(Picture.open(bare.content).pixels, Picture.open(by_form.content).pixels)


def test_pictures_as_styles_blends_and_masks(http, photo, brushwork, half):
    own = ("style", ("mine.png", brushwork))
    blended = http.post("/v1/stylize", **form(photo, own, style="irises", weights="0.4,0.6"))
    assert blended.status_code == 200, blended.text
    recipe = read_recipe(blended.content)
    assert [(t["weight"], t.get("name") or t.get("path")) for t in recipe["styles"][0]] == [(0.4, "irises"), (0.6, "mine.png")]
    named = http.post("/v1/stylize", **form(photo, blend="great-wave=0.7,irises=0.3"))
    assert [t["weight"] for t in read_recipe(named.content)["styles"][0]] == [0.7, 0.3]
    masked = http.post("/v1/stylize", **form(photo, own, ("mask", ("m.png", half))), headers={"accept": "image/png"})
    painted = Picture.open(masked.content).pixels
    assert np.array_equal(painted[:, 33:], Picture.open(photo).pixels[:, 33:])
    assert np.abs(painted[:, :31] - Picture.open(photo).pixels[:, :31]).mean() > 0.02


def test_so_many_masks_and_no_more(http, photo, half):
    masks = [("mask", ("m.png", half))] * 9
    refused = http.post("/v1/stylize", **form(photo, *masks, style="irises"))
    assert (refused.status_code, refused.json()["error"].partition(":")[0]) == (422, "there may be 8 masks in a request; got 9")
    assert http.post("/v1/stylize", **form(photo, *masks[:8], style="irises")).status_code == 200


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("image/png", "image/png"),
        ("image/webp;q=0.5, image/png;q=0.9", "image/png"),
        ("text/html, image/webp", "image/webp"),
        ("*/*", "image/jpeg"),
        ("", "image/jpeg"),
        ("image/*, image/png;q=0.2", "image/jpeg"),
        ("image/tiff, */*;q=0.1", "image/tiff"),
        ("image/png;q=0, image/bmp;q=0.1", "image/bmp"),
    ],
)
def test_accept_decides_the_format(http, photo, accept, media):
    answer = http.post("/v1/stylize", **form(photo, style="irises"), headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, media)
    assert Image.open(io.BytesIO(answer.content)).size == (64, 48)


def bomb():
    """A PNG that says it has 40 000 x 40 000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10_000_000))) + chunk(b"IEND", b"")


def long():
    return Picture.from_array(np.zeros((1, 16_400), np.float32)).encode("png")


WRONG = {
    "too long for its format": (
        {"content": long},
        {"style": "irises", "format": "webp"},
        422,
        "WebP holds at most 16383 pixels a side; got 16400 x 1: ask for PNG or TIFF",
    ),
    "no picture": ({"content": b"this is no picture"}, {"style": "irises"}, 422, "content: the file is not a picture that can be read"),
    "a film": (
        {"content": b"\0\0\0\x18ftypisom" + bytes(99)},
        {"style": "irises"},
        422,
        "content: the file is a film, and a picture is wanted "
        "here; send it to POST /v1/jobs with a file name such as film.mp4 or a format such as mp4",
    ),
    "empty": ({"content": b""}, {"style": "irises"}, 422, "send one picture, as the body or as the part called content; got an empty one"),
    "too many pixels": (
        {"content": bomb},
        {"style": "irises"},
        422,
        "content: the picture is 40000 x 40000 pixels, and this service takes 100,000 at most; send a smaller one",
    ),
    "two styles": ({}, {"style": ["irises", "great-wave"]}, 422, "got 2 styles and 0 masks (with weights several are blended into one)"),
    "no style": ({}, {}, 422, "give a style"),
    "unknown style": ({}, {"style": "great-wav"}, 422, "unknown style 'great-wav'; did you mean 'great-wave'?"),
    "no style at all": (
        {},
        {"style": "nope"},
        422,
        "unknown style 'nope'; GET /v1/styles lists them, or send a picture as the part style",
    ),
    "blend of none": ({}, {"blend": "nope=1"}, 422, "unknown style 'nope'; GET /v1/styles lists them"),
    "a path": ({}, {"style": "/etc/passwd"}, 422, "unknown style '/etc/passwd'"),
    "a url": ({}, {"style": "http://127.0.0.1/a.png"}, 422, "unknown style 'http://127.0.0.1/a.png'"),
    "blend of paths": ({}, {"blend": "/etc/passwd=1"}, 422, "unknown style '/etc/passwd'"),
    "blend": ({}, {"blend": "a,b"}, 422, "a blend is written NAME=WEIGHT"),
    "style and blend": ({}, {"style": "irises", "blend": "irises=1"}, 422, "not both"),
    "weights": ({}, {"style": "irises", "weights": "1,2"}, 422, "one weight for each style; got 2 weights and 1 styles"),
    "no number": ({}, {"style": "irises", "strength": "much"}, 422, "strength must be a number between 0 and 2; got 'much'"),
    "no whole number": ({}, {"style": "irises", "size": "big"}, 422, "size must be a whole number of 1 or more; got 'big'"),
    "neither yes nor no": ({}, {"style": "irises", "invert_mask": "so"}, 422, "invert_mask must be true or false; got 'so'"),
    "the API's names": ({}, {"style": "irises", "style_scale": "9"}, 422, "style_scale must be between 0.25 and 4; got 9"),
    "a mask without @": (
        {},
        {"style": "irises", "mask": "sky.png"},
        422,
        "mask must be a file, and a text came; with curl that is -F mask=@FILE, with the @",
    ),
    "a film's format": ({}, {"style": "irises", "format": "mp4"}, 422, "the format mp4 is for films, and films are jobs; send the film to"),
    "a film for a mask": (
        {"mask": b"\0\0\0\x18ftypisom" + bytes(99)},
        {"style": "irises"},
        422,
        "mask: the file is a film, and a picture is wanted here",
    ),
    "out of range": ({}, {"style": "irises", "strength": "3.5"}, 422, "strength must be between 0 and 2; got 3.5"),
    "not finite": ({}, {"style": "irises", "strength": "nan"}, 422, "strength must be a number between 0 and 2; got 'nan'"),
    "huge": ({}, {"style": "irises", "size": "9" * 400}, 422, "size"),
    "too large a result": ({}, {"style": "irises", "size": "5000"}, 422, "size 5000 makes 18,750,000 pixels of this picture; 100,000 are"),
    "statistics": ({}, {"style": "irises", "statistics": "exat"}, 422, "unknown statistics 'exat'; did you mean 'exact'?"),
    "detail": ({}, {"style": "irises", "detail": "paint"}, 422, "unknown detail 'paint'; did you mean 'painted'?"),
    "twice": ({}, {"style": "irises", "strength": ["1", "1"]}, 422, "'strength' is given twice"),
    "unknown option": ({}, {"style": "irises", "strenght": "1"}, 422, "unknown option 'strenght'; did you mean 'strength'?"),
    "unknown part": ({"contnt": b"x"}, {"style": "irises"}, 422, "unknown part 'contnt'; did you mean 'content'?"),
    "broken style": ({"style": b"x"}, {}, 422, "style: the file is not a picture"),
    "broken mask": ({"mask": b"x"}, {"style": "irises"}, 422, "mask: the file is not a picture"),
    "styles without end": ({}, {"style": ["irises"] * 9}, 422, "there may be 8 styles in a request; got 9: send less"),
    "blend without end": ({}, {"blend": ",".join(["irises=1"] * 9)}, 422, "there may be 8 styles in a request; got 9: send less"),
    "unknown format": ({}, {"style": "irises", "format": "exe"}, 422, "unknown picture format 'exe'"),
    "film option": ({}, {"style": "irises", "steady": "1"}, 422, "steady is for films, and films are jobs; send the film to POST /v1/jobs"),
}


@pytest.mark.parametrize("case", WRONG)
def test_every_mistake_gets_one_sentence_and_an_id(http, photo, case):
    files, fields, status, sentence = WRONG[case]
    parts = {"content": photo, **{name: data() if callable(data) else data for name, data in files.items()}}
    answer = http.post("/v1/stylize", files=[(name, (name, data)) for name, data in parts.items()], data=fields)
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error", "id"}
    assert told["error"].startswith(sentence) or sentence in told["error"]
    assert told["id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert "site-packages" not in answer.text
    assert "\n" not in told["error"]
    assert "scumble " not in told["error"], "the command line is not at hand"
    assert "/v1/jobs" not in told["error"] or "mask" not in case


def test_every_truncation_of_a_picture_is_an_error_or_a_picture(http, photo):
    for length in range(1, len(photo), len(photo) // 12):
        answer = http.post("/v1/stylize", params={"style": "irises"}, content=photo[:length])
        assert answer.status_code in (200, 422), answer.text


@pytest.mark.parametrize("body", [b"", b"--x", b"--x\r\n\r\n", b"\x00" * 100, b"--x\r\ncontent-disposition: form-data\r\n\r\na\r\n--x--"])
def test_forms_that_are_none(http, body):
    answer = http.post("/v1/stylize", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code in (400, 422)
    assert set(answer.json()) == {"error", "id"}
    without = http.post("/v1/stylize", content=body, headers={"content-type": "multipart/form-data"})
    assert without.status_code in (400, 422)


MULTIPART = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("kind", "body", "sentence"),
    [
        ("application/x-www-form-urlencoded", bytes(range(256)) + b"&=" * 100, "send Content-Type: image/jpeg (or another image type)"),
        ("multipart/form-data", b"--x", "multipart/form-data needs a boundary in the Content-Type"),
        (MULTIPART, b"no form", "the body is no whole multipart/form-data form"),
        (MULTIPART, b"--x\r\na: b\r\n\r\nc\r\n--x--", "the body is no whole multipart/form-data form"),
        (MULTIPART, b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n' * 65 + b"--x--", "there may be 64 files and as many"),
        (
            MULTIPART,
            b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n' + bytes(1_000_001),
            "a field of a form may have 1,000,000 b",
        ),
    ],
)
def test_what_is_wrong_with_a_form_is_said_and_logged_in_our_words(http, caplog, kind, body, sentence):
    answer = http.post("/v1/stylize?style=irises", content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    lines = [r.getMessage() for r in caplog.records if r.name.startswith(("scumble", "python_multipart"))]
    assert lines == [f"request {answer.json()['id']}: 400, {answer.json()['error']}"]


def test_what_can_not_be_made_is_not_acceptable(http, photo):
    answer = http.post("/v1/stylize", **form(photo, style="irises"), headers={"accept": "application/pdf"})
    assert answer.status_code == 406


def test_paths_and_methods_that_are_not_there(http):
    assert http.get("/v1/nothing").json()["error"] == "there is nothing at this path; see /docs"
    answer = http.put("/v1/stylize")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    for method, path in (("PUT", "/v1/stylize"), ("PUT", "/v1/styles"), ("POST", "/healthz")):
        refused = http.request(method, path)
        assert refused.json()["error"] == f"{method} can't be done here; allowed: {refused.headers['allow']}"
    assert http.get("/nothing").json()["error"] == "there is nothing at this path; see /docs"
    assert http.patch("/v1/jobs/x").headers["allow"] == "DELETE, GET"
    assert http.get("/v1/jobs/" + "x" * 22).status_code == 404


def test_balancers_may_ask_for_the_head_alone(http):
    for path in ("/healthz", "/readyz"):
        answer = http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
    for method, path in (("HEAD", "/metrics"), ("POST", "/docs"), ("PUT", "/readyz"), ("HEAD", "/v1/styles")):
        answer = http.request(method, path)
        assert answer.status_code == 405 and "GET" in answer.headers["allow"]
        assert method == "HEAD" or set(answer.json()) == {"error", "id"}
    for path in ("/v1", "/v1/", "//v1/styles"):
        answer = http.get(http.base_url.join(path) if not path.startswith("//") else f"{http.base_url}{path}")
        assert (answer.status_code, answer.json()["error"]) == (404, "there is nothing at this path; see /docs")


def test_the_library(http):
    styles = http.get("/v1/styles").json()["styles"]
    assert len(styles) > 90
    assert http.get("/v1/styles/great-wave").json() == next(s for s in styles if s["name"] == "great-wave")
    assert http.get("/v1/styles/nope").json()["error"].startswith("unknown style 'nope'; GET /v1/styles lists them")
    assert http.get("/v1/styles/great-wav").json()["error"] == "unknown style 'great-wav'; did you mean 'great-wave'?"


def test_the_schemas_numbers_are_the_librarys(http, photo):
    fields = http.get("/openapi.json").json()["paths"]["/v1/stylize"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    painter, small = Stylizer(threads=1), Picture.open(photo)
    for name in ("strength", "keep_color", "style_scale"):
        schema = fields["properties"][name]
        painter(small, "irises", **{name: schema["minimum"]})
        painter(small, "irises", **{name: schema["maximum"]})
        for beyond in (schema["minimum"] - 0.01, schema["maximum"] + 0.01):
            with pytest.raises(UsageError):
                painter(small, "irises", **{name: beyond})


def test_200_at_once_are_painted_or_told_to_come_again(http, photo):
    def ask(_):
        answer = http.post("/v1/stylize", params={"style": "irises"}, content=photo)
        return answer.status_code, int(answer.headers.get("retry-after", 0)), len(answer.content)

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(200)))
    assert {status for status, _, _ in answers} <= {200, 429}
    painted = [size for status, _, size in answers if status == 200]
    assert len(painted) >= 9, "as many as there is room for, at least"
    assert len(set(painted)) == 1
    assert all(after >= 1 for status, after, _ in answers if status == 429)
    assert http.post("/v1/stylize", params={"style": "irises"}, content=photo).status_code == 200


@pytest.fixture(scope="module")
def noise():
    """A PNG of 2 MB."""
    return Picture.from_array(np.random.default_rng(1).random((800, 850, 3)).astype(np.float32)).encode("png")


def test_what_takes_too_long_is_given_up_and_what_fills_the_disk_refused(serving, tmp_path, noise):
    with (
        serving(Settings(data=tmp_path, page=False, timeout=0.5, disk=1_000_000)) as url,
        httpx.Client(base_url=url, timeout=120) as client,
    ):
        late = client.post("/v1/stylize", **form(noise, style="irises", method="ot"))
        assert (late.status_code, late.json()["error"]) == (504, "it took longer than 0.5 s; send it as a job to /v1/jobs")
    with serving(Settings(data=tmp_path, page=False, disk=1_000_000)) as url, httpx.Client(base_url=url, timeout=120) as client:
        full = client.post("/v1/jobs", **form(noise, style="irises"))
        assert full.status_code == 507
        assert "the disk space for jobs is used up" in full.json()["error"]
        assert int(full.headers["retry-after"]) > 0


def test_an_upload_leaves_no_file_behind(serving, tmp_path, noise, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with serving(Settings(data=tmp_path / "data", page=False)) as url, httpx.Client(base_url=url, timeout=120) as client:
        assert client.post("/v1/stylize", **form(noise, style="irises", strength=0)).status_code == 200
        assert client.post("/v1/stylize", **form(noise, style="nobody")).status_code == 422
        assert not list((tmp_path / "temporary").iterdir())
        assert not list((tmp_path / "data" / "jobs").iterdir())


def test_the_numbers_for_prometheus(http, photo):
    def count():
        line = [x for x in http.get("/metrics").text.splitlines() if x.startswith("scumble_painted_pixels_total ")]
        return float(line[0].split()[1])

    before = count()
    http.post("/v1/stylize", params={"style": "irises"}, content=photo)
    assert count() == before + 64 * 48
    text = http.get("/metrics").text
    assert 'scumble_requests_total{method="POST",route="/v1/stylize",status="200"}' in text
    assert "scumble_ready 1.0" in text


def test_schemathesis_finds_nothing_against_the_schema(url):
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install 'scumble[dev]'")
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    strategies = [operation.ok().as_strategy() for operation in schema.get_all_operations() if operation.ok().path != "/metrics"]
    assert len(strategies) >= 10
    for strategy in strategies:

        @given(case=strategy)
        @settings(
            max_examples=12,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        def holds(case):
            answer = case.call(base_url=url)
            case.validate_response(
                answer,
                # what is sent as a picture is random bytes, so that few are accepted is right
                excluded_checks=[schemathesis.checks.positive_data_acceptance]
                if hasattr(schemathesis.checks, "positive_data_acceptance")
                else [],
            )

        holds()


def test_an_order_survives_being_written_down(photo, brushwork, half):
    order = orders.Order(
        orders.Upload("a.jpg", photo),
        [[(0.5, "irises"), (0.5, orders.Upload("b.png", brushwork))]],
        [orders.Upload("m.png", half)],
        {"strength": 0.5},
        "png",
        0.25,
    )
    text, files = orders.to_json(order)
    json.loads(text)
    assert orders.from_json(text, files.__getitem__) == order
