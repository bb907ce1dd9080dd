import http.server
import json
import pickle
import threading
from email.parser import BytesParser
from email.policy import HTTP

import numpy as np
import pytest

from scumble import client as module
from scumble.client import Client, Painted, ServiceError
from scumble.errors import InputError, UsageError
from scumble.picture import Picture

JOB = {
    "id": "x", "kind": "picture", "state": "done", "created": 1.0, "started": 2.0, "finished": 3.0, "expires": 9.0, "interrupted": False,
    "error": None, "result": "/v1/jobs/x/result", "progress": {"done": 1, "total": 2, "loss": 0.5}, "from a later version": 1,
}  # fmt: skip


@pytest.fixture
def fake():
    """A server that notes what it is sent and answers from a list; gives (client, what was sent, the answers)."""
    sent, answers = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            sent.append((self.command, self.path, dict(self.headers), body))
            status, headers, data = answers.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            lacking = headers.get("lacking", 0)  # bytes that are announced and don't come
            self.send_header("content-length", str(len(data) + int(lacking)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Client(f"http://127.0.0.1:{server.server_port}/art/", token="secret-token"), sent, answers
        server.shutdown()


def parts(headers, body):
    head = f"content-type: {headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    return [
        (p["content-disposition"].params["name"], p["content-disposition"].params.get("filename"), p.get_payload(decode=True))
        for p in message.iter_parts()
    ]


def test_what_is_asked_for_becomes_a_form(fake, tmp_path):
    client, sent, answers = fake
    (tmp_path / 'my "best" one.jpg').write_bytes(b"photo\r\n--")
    (tmp_path / "mine.png").write_bytes(b"style")
    answers.append((200, {"content-type": "image/png"}, b"painted"))
    style = ["irises", tmp_path / "mine.png"]
    painted = client.stylize(
        tmp_path / 'my "best" one.jpg', style, weights=[0.25, 1], masks=[b"mask"], accept="image/png", strength=0.5, size=None
    )
    assert (painted.data, painted.media_type) == (b"painted", "image/png")
    method, path, headers, body = sent[0]
    assert (method, path, headers["accept"], headers["authorization"]) == ("POST", "/art/v1/stylize", "image/png", "Bearer secret-token")
    assert parts(headers, body) == [
        ("strength", None, b"0.5"),
        ("style", None, b"irises"),
        ("weights", None, b"0.25,1.0"),
        ("content", "my %22best%22 one.jpg", b"photo\r\n--"),
        ("style", "mine.png", b"style"),
        ("mask", "picture", b"mask"),
    ]


def test_a_busy_service_is_asked_again(fake, monkeypatch):
    client, sent, answers = fake
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    busy = (429, {"retry-after": "7"}, b'{"error": "the service is busy", "id": "1"}')
    answers += [busy, busy, (200, {}, json.dumps(JOB).encode())]
    job = client.job("x")
    assert pauses == [7.0, 7.0]
    assert (job.state, job.done, job.total, job.has_result, job.ended) == ("done", 1, 2, True, True)
    answers += [busy] * module.TRIES
    with pytest.raises(ServiceError, match="the service is busy") as refused:
        client.job("x")
    assert (refused.value.status, refused.value.request_id, refused.value.retry_after) == (429, "1", 7.0)
    assert len(sent) == 3 + module.TRIES


def test_other_refusals_are_told_at_once(fake):
    client, sent, answers = fake
    answers += [(422, {}, b'{"error": "strength must be", "id": "2"}'), (502, {}, b"<html>bad gateway</html>")]
    with pytest.raises(ServiceError, match="strength must be"):
        client.job("x")
    with pytest.raises(ServiceError, match="the service answered with status 502"):
        client.job("x")
    assert len(sent) == 2


def test_what_is_no_scumble_is_told_and_not_taken_for_a_picture(fake):
    client, _, answers = fake
    page, html = {"content-type": "text/html"}, b"<html>please log in</html>"
    answers += [(302, page | {"location": "https://example.org/"}, html), (302, page, html), (200, page, html), (200, page, html)]
    with pytest.raises(ServiceError, match=r"status 302 and points to https://example\.org/"):
        client.styles()
    with pytest.raises(ServiceError, match="status 302"):
        client.stylize(b"photo", "irises")
    with pytest.raises(ServiceError, match="no Scumble"):
        client.stylize(b"photo", "irises")
    with pytest.raises(ServiceError, match="no Scumble"):
        client.styles()
    answers += [(200, page, html), (200, {}, b'{"styles": [{"name": "irises"}]}')]
    assert not client.ready()
    with pytest.raises(ServiceError, match="no Scumble"):
        client.styles()
    style = {"name": "irises", "title": "", "artist": "", "year": "", "medium": "", "group": ""}
    answers.append((200, {}, json.dumps({"styles": [style | {"from a later version": 1}]}).encode()))
    assert client.styles()[0].name == "irises"


def test_waiting_outlives_a_connection_that_breaks(fake):
    client, sent, answers = fake
    event = b"event: job\ndata: %s\n\n"
    running = json.dumps(JOB | {"state": "running", "result": None}).encode()
    answers += [
        (200, {"content-type": "text/event-stream"}, b": still there\n\n" + event % running),
        (200, {}, running),
        (200, {"content-type": "text/event-stream"}, event % json.dumps(JOB).encode()),
        (200, {"content-type": "image/png"}, b"painted"),
    ]
    assert client.wait("x").data == b"painted"
    assert [path for _, path, _, _ in sent] == [f"/art/v1/jobs/x{more}" for more in ("/events", "", "/events", "/result")]


def test_waiting_outlives_answers_that_are_cut_off(fake, monkeypatch):
    client, _, answers = fake
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    stream, cut = {"content-type": "text/event-stream"}, {"lacking": "9"}
    running = json.dumps(JOB | {"state": "running", "result": None}).encode()
    answers += [
        (200, stream | cut, b"data: " + running + b"\n\ndata: {"),
        (200, cut, running[:20]),
        (200, stream, b"data: " + json.dumps(JOB).encode() + b"\n\n"),
        (200, {"content-type": "image/png"}, b"painted"),
    ]
    assert client.wait("x").data == b"painted"
    assert pauses == [1]
    answers += [(200, cut, b"")] * 2 * module.TRIES
    with pytest.raises(ServiceError, match="broke off"):
        client.wait("x")


def test_an_answer_that_is_cut_off_is_said_in_a_sentence(fake, monkeypatch):
    client, _, answers = fake
    answers += [(200, {"lacking": "9"}, b"half"), (404, {"lacking": "9"}, b"half")]
    with pytest.raises(ServiceError, match=r"broke off \(IncompleteRead.*\); try again") as refused:
        client.result("x")
    assert refused.value.status == 0
    with pytest.raises(ServiceError, match="status 404"):
        client.result("x")

    def reset(_answer):
        raise ConnectionResetError("connection reset by peer")

    answers.append((200, {}, b"half"))
    monkeypatch.setattr(module.http.client.HTTPResponse, "read", reset)
    with pytest.raises(ServiceError, match="broke off"):
        client.result("x")


def test_a_job_without_a_result_says_why(fake):
    client, _, answers = fake
    failed = JOB | {"state": "failed", "error": "out of memory", "result": None}
    answers.append((200, {}, b"data: " + json.dumps(failed).encode() + b"\n\n"))
    with pytest.raises(ServiceError, match="out of memory"):
        client.wait("x")


def test_nobody_there():
    with pytest.raises(ServiceError, match="can't be reached") as refused:
        Client("http://127.0.0.1:1").styles()
    assert refused.value.status == 0
    assert not Client("http://127.0.0.1:1").ready()


@pytest.mark.parametrize("url", ["127.0.0.1:7878", "ftp://host", "http://", ""])
def test_an_address_that_is_none(url):
    with pytest.raises(UsageError, match="begins with http:// or https://"):
        Client(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:abc", "http://host:99999", "http://[::1", "http://a b", "http://a..b", "http://h/\udcff"]
)
def test_an_address_that_leads_nowhere(url):
    with pytest.raises(UsageError, match=r"^the service's address must be as in http://127\.0\.0\.1:7878; got "):
        Client(url)


def test_a_proxys_path_is_sent_in_ascii(fake):
    client, sent, answers = fake
    answers.append((200, {}, json.dumps(JOB).encode()))
    Client(f"http://{client._host}/größe%20x/").job("x")
    assert sent[0][1] == "/gr%C3%B6%C3%9Fe%20x/v1/jobs/x"


@pytest.mark.parametrize("token", ["a\nb", "secret-token\n", "€", b"secret", 5])
def test_a_token_that_no_header_can_hold_is_refused_and_not_told(token, monkeypatch):
    with pytest.raises(UsageError, match=r"^the service's token must be a text of printable ASCII characters; .* line break at its end$"):
        Client(token=token)
    if isinstance(token, str):
        monkeypatch.setenv("SCUMBLE_TOKEN", token)
        with pytest.raises(UsageError, match="token must be"):
            Client()


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda c: Client(3), r"the service's address is a text as in http://127\.0\.0\.1:7878; got 3"),
        (lambda c: Client(timeout="long"), "timeout must be a number between .*; got 'long'"),
        (lambda c: c.stylize(b"photo", blend={"a": "x"}), "the weight of a in blend must be a number; got 'x'"),
        (lambda c: c.stylize(b"photo", blend="a=1"), "blend gives each name its weight, .*; got 'a=1'"),
        (lambda c: c.submit(b"photo", ["a", "b"], weights=["x", 1]), "weights are numbers, .*; got 'x'"),
        (lambda c: c.submit(b"photo", ["a", "b"], weights=1), "weights are numbers, .*; got 1"),
        (lambda c: c.submit(b"photo", "a", masks=None), "masks must be a path, a file's bytes, or several; got None"),
        (lambda c: c.submit(b"photo", "a", masks=[None]), "a picture must be a path, or a file's bytes .*; got None"),
        (lambda c: c.stylize(b"photo", 3), "style must be a name, a path, a file's bytes, or several; got 3"),
        (lambda c: c.stylize(None, "a"), "a picture must be a path, or a file's bytes .*; got None"),
        (lambda c: c.stylize(Picture(np.ones((2, 2, 3), np.float32)), "a"), "a picture must be a path, or a file's bytes .*; got Picture"),
        (lambda c: c.stylize(b"photo", "a", accept="image/png\n"), "accept must be a text of printable ASCII characters; .*"),
        (lambda c: c.job(None), "a job is named by its id, a text; got None"),
        (lambda c: Painted(b"data", "image/png").save(None), "what was painted is saved under a path; got None"),
    ],
)
def test_what_is_of_a_wrong_kind(attempt, message):
    with pytest.raises(UsageError, match=f"^{message}$"):
        attempt(Client("http://127.0.0.1:1"))


def test_a_refusal_comes_whole_through_a_pickle():
    refused = pickle.loads(pickle.dumps(ServiceError("the service is busy", 429, "1", 7.0)))
    assert (str(refused), refused.status, refused.request_id, refused.retry_after) == ("the service is busy", 429, "1", 7.0)


def test_what_is_saved_replaces_nothing_unasked(tmp_path):
    painted = Painted(b"data", "image/png")
    assert painted.save(tmp_path / "a.png").read_bytes() == b"data"
    with pytest.raises(InputError, match="exists already"):
        painted.save(tmp_path / "a.png")
    Painted(b"new", "image/png").save(tmp_path / "a.png", overwrite=True)
    assert (tmp_path / "a.png").read_bytes() == b"new"
    with pytest.raises(InputError, match="cannot write"):
        painted.save(tmp_path / "no" / "a.png")
    with pytest.raises(InputError, match="cannot write"):
        painted.save(tmp_path / ("a" * 300 + ".png"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        Client("http://127.0.0.1:1").stylize(tmp_path / "no.jpg", "irises")
    for path, told in (("", "an empty path was given"), ("null\0character.jpg", "can't be read")):
        with pytest.raises(InputError, match=told):
            Client("http://127.0.0.1:1").stylize(path, "irises")


def sent_as(fake, style="irises", **options):
    client, sent, answers = fake
    answers.append((200, {"content-type": "image/png"}, b"painted"))
    client.stylize(b"photo", style, **options)
    *_, headers, body = sent[-1]
    return [part for part in parts(headers, body) if part[0] != "content"]


def test_names_come_before_files_as_on_the_command_line(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "irises").write_bytes(b"file")
    (tmp_path / "work.png").write_bytes(b"work")
    assert sent_as(fake, "irises") == [("style", None, b"irises")]
    assert sent_as(fake, "./irises") == [("style", "irises", b"file")]
    assert sent_as(fake, "work.png") == [("style", "work.png", b"work")]
    with pytest.raises(InputError, match=r"^none\.png can't be read"):
        sent_as(fake, "none.png")


def test_one_mask_or_several(fake, tmp_path):
    (tmp_path / "sky.png").write_bytes(b"sky")
    for masks in (str(tmp_path / "sky.png"), tmp_path / "sky.png", [tmp_path / "sky.png"]):
        assert sent_as(fake, masks=masks)[1:] == [("mask", "sky.png", b"sky")]
    with pytest.raises(UsageError, match=r"as in masks='sky\.png'; got mask="):
        sent_as(fake, mask="sky.png")
