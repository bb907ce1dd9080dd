import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image

from scumble.client import Client, ServiceError
from scumble.picture import Picture, read_recipe
from scumble.serve.settings import Settings

pytest.importorskip("scumble.serve.jobs", reason="needs the extra serve: pip install 'scumble[serve]'")
SOON = 180.0
"""Seconds; a few do where the machine has nothing else to do."""


@pytest.fixture(scope="module")
def client(serving, tmp_path_factory):
    with serving(Settings(data=tmp_path_factory.mktemp("jobs"), page=False, per_client=100)) as url:
        yield Client(url)


def until(holds, seconds=SOON):
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def test_a_job_is_painted_as_at_once(client, photo):
    job = client.submit(photo, "great-wave", strength=0.8)
    assert (job.kind, job.error, job.has_result) == ("picture", None, False)
    result = client.wait(job.id)
    assert result.data == client.stylize(photo, "great-wave", strength=0.8).data
    assert result.media_type == "image/jpeg"
    ended = client.job(job.id)
    assert (ended.state, ended.interrupted) == ("done", False)
    assert ended.expires == pytest.approx(ended.finished + 86_400, abs=1)


def test_what_can_be_said_against_it_is_said_at_once(client, photo):
    for options, sentence in (
        ({"strength": 3}, "strength must be between"),
        ({"format": "exe"}, "unknown picture format"),
        ({"steady": 1}, "films"),
        ({"size": 20_000}, "size 20000 makes 300,000,000 pixels of this picture; 50,000,000 are allowed"),
    ):
        with pytest.raises(ServiceError, match=sentence) as refused:
            client.submit(photo, "irises", **options)
        assert refused.value.status == 422
    with pytest.raises(ServiceError, match="content: the file is not a picture"):
        client.submit(b"no picture", "irises")


def test_a_refinement_tells_how_far_it_is(client, photo):
    pytest.importorskip("torch", reason="needs the extra torch")
    job = client.submit(photo, "irises", steps=6, format="png")
    seen = list(client.events(job.id))
    assert seen[-1].state == "done"
    assert (seen[-1].done, seen[-1].total) == (6, 6)
    assert seen[-1].loss > 0
    assert [e.done for e in seen] == sorted(e.done for e in seen)
    assert read_recipe(client.result(job.id).data)["settings"]["steps"] == 6


def test_cancelling_a_refinement_keeps_the_best_so_far(client, photo):
    pytest.importorskip("torch", reason="needs the extra torch")
    job = client.submit(photo, "irises", steps=1000)
    until(lambda: client.job(job.id).done >= 1)
    with pytest.raises(ServiceError, match="wait until it has ended") as early:
        client.result(job.id)
    assert early.value.status == 409
    client.cancel(job.id)
    ended = until(lambda: (now := client.job(job.id)).ended and now)
    assert (ended.state, ended.interrupted, ended.has_result) == ("cancelled", True, True)
    best = client.result(job.id)
    assert Picture.open(best.data).size == (48, 64)
    assert read_recipe(best.data)["interrupted"] is True
    client.cancel(job.id)
    with pytest.raises(ServiceError, match="there is no such job"):
        client.job(job.id)


def test_films(client, tmp_path, brushwork):
    av = pytest.importorskip("av", reason="needs the extra video")
    pytest.importorskip("cv2", reason="needs the extra video")
    import numpy as np

    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(5):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * shade, np.uint8), format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    job = client.submit(path, "irises", format="webm")
    assert job.kind == "film"
    result = client.wait(job.id)
    assert result.media_type == "video/webm"
    with av.open(str(result.save(tmp_path / "painted.webm"))) as file:
        assert len(list(file.decode(video=0))) == 5
    for options, sentence in (
        ({"quality": "best"}, "one pass"),
        ({"style_fit": "stretch"}, "in its own shape"),
        ({"grain": 5}, "grain must be between 0 and 4; got 5"),
        ({"steady": 1.5}, "steady must be between 0 and 1; got 1.5"),
        (
            {"detail": "painted"},
            "films have no detail, but strength, method, style_scale, keep_color, grain, size and steady; leave it out",
        ),
        ({"quality": "draft"}, "films have no quality"),
        ({"size": 20_000}, "size 20000 makes 300,000,000 pixels of a frame"),
    ):
        with pytest.raises(ServiceError, match=sentence):
            client.submit(path, brushwork, **options)


def test_what_is_no_film_is_told_at_once(client, tmp_path, photo, monkeypatch):
    pytest.importorskip("av", reason="needs the extra video")
    for name, data, sentence in (
        ("letter.mp4", b"Dear Sirs", r"content: the file can't be read as a video"),
        ("cut.mp4", b"\0\0\0\x18ftypisom" + bytes(99), "content: the file "),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ServiceError, match=sentence) as refused:
            client.submit(tmp_path / name, "irises")
        assert refused.value.status == 422 and "/" not in str(refused.value)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ServiceError, match=r'pip install "scumble\[video\]"') as missing:
        client.submit(tmp_path / "cut.mp4", "irises")
    assert missing.value.status == 501


def test_an_error_of_a_job_does_not_tell_where_its_files_are(tmp_path, photo):
    from scumble.errors import InputError
    from scumble.serve.jobs import Jobs, _Run
    from scumble.serve.orders import Order
    from scumble.serve.service import PaintService, Upload

    service = PaintService(Settings(data=tmp_path))
    jobs = Jobs(service)
    try:
        for name, told in (("content", "the content is damaged"), ("result.mp4", "result.mp4 is damaged"), ("", "… is damaged")):
            job = jobs.add(Order(Upload("a.mp4", photo), [[(1.0, "irises")]], [], {}), "film")

            def fail(run, _order, name=name):
                raise InputError(f"{jobs.store.path(run.job.id, name) if name else jobs.store.path(run.job.id)} is damaged")

            jobs._film = fail
            jobs._do(_Run(jobs.store.claim(jobs.owner), 60))
            assert jobs.store.get(job.id).error == told
    finally:
        jobs.close()
        service.close()


def test_an_animation_is_painted_whole(client, tmp_path, brushwork):
    frames = [Image.new("RGB", (48, 40), (40 * k, 90, 200 - 40 * k)) for k in range(3)]
    for suffix in ("gif", "webp"):
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=80)
        job = client.submit(tmp_path / f"a.{suffix}", brushwork)
        assert job.kind == "film"
        result = client.wait(job.id)
        assert result.media_type == "image/gif"
        with Image.open(result.save(tmp_path / f"painted-{suffix}.gif")) as painted:
            assert (painted.n_frames, painted.size) == (3, (48, 40))
    frames[0].save(tmp_path / "still.gif")
    assert client.submit(tmp_path / "still.gif", brushwork).kind == "picture"
    assert client.submit(tmp_path / "a.gif", brushwork, format="png").kind == "picture"
    with pytest.raises(ServiceError, match=r"an animation, and a film has one style .* for its first frame alone give a format"):
        client.submit(tmp_path / "a.gif", brushwork, masks=[tmp_path / "still.gif"])


@pytest.mark.parametrize(("why", "state"), [("the job was stopped after 1 s", "failed"), (None, "cancelled")])
def test_a_picture_that_was_stopped_has_no_result_and_says_why(why, state, tmp_path, photo, monkeypatch):
    from scumble.serve.jobs import Jobs, _Run
    from scumble.serve.orders import Order
    from scumble.serve.service import PaintService, StoppedError, Upload

    def stop(_run, _order):
        raise StoppedError("the painting was cancelled")

    service = PaintService(Settings(data=tmp_path))
    jobs = Jobs(service)
    monkeypatch.setattr(jobs, "_picture", stop)
    jobs.add(Order(Upload("a.jpg", photo), [[(1.0, "irises")]], [], {}), "picture")
    run = _Run(jobs.store.claim(jobs.owner), 1)
    run.why = why
    run.cancel.set()
    jobs._do(run)
    ended = jobs.store.get(run.job.id)
    assert (ended.state, ended.error, ended.result) == (state, why, None)
    jobs.close()
    service.close()


def test_a_job_whose_end_can_not_be_written_ends_no_worker(tmp_path, monkeypatch, caplog):
    from scumble.serve.jobs import Jobs
    from scumble.serve.service import PaintService

    service = PaintService(Settings(data=tmp_path))
    jobs = Jobs(service)
    done = threading.Event()

    def do(run):
        if not done.is_set():
            done.set()
            raise sqlite3.OperationalError("disk I/O error")
        jobs._end(run.job, "done")

    monkeypatch.setattr(jobs, "_do", do)
    jobs.start()
    try:
        first = jobs.store.add("picture", "{}", {})
        assert done.wait(SOON)
        second = jobs.store.add("picture", "{}", {})
        until(lambda: jobs.store.get(second.id).ended)
        assert jobs.store.get(first.id).state == "running", "it is begun again when its lease has run out"
    finally:
        jobs.close()
        service.close()
    assert f"job {first.id} came to no end" in caplog.text


def test_a_job_that_is_claimed_while_the_service_closes_ends_with_it(tmp_path, monkeypatch):
    from scumble.serve.jobs import Jobs
    from scumble.serve.service import PaintService

    service = PaintService(Settings(data=tmp_path))
    jobs = Jobs(service)
    claim, asked, closing, cancelled = jobs.store.claim, threading.Event(), threading.Event(), []

    def slowly(*given):
        asked.set()
        closing.wait(SOON)
        return claim(*given)

    monkeypatch.setattr(jobs.store, "claim", slowly)
    monkeypatch.setattr(jobs, "_do", lambda run: cancelled.append(run.cancel.wait(5)))
    jobs.store.add("picture", "{}", {})
    jobs.start()
    asked.wait(SOON)
    end = threading.Thread(target=jobs.close)
    end.start()
    until(jobs._over.is_set)
    time.sleep(0.1)
    closing.set()
    end.join(SOON)
    service.close()
    assert cancelled == [True]


def test_no_net_runs_on_when_the_service_has_ended(serving, tmp_path, monkeypatch):
    from scumble.serve.service import PaintService

    monkeypatch.setattr(PaintService, "_modulation", lambda *_: time.sleep(0.2))  # of a hundred styles, which it begins with
    with serving(Settings(data=tmp_path, page=False)):
        assert any(thread.name == "scumble-warm" for thread in threading.enumerate())
    assert not any(thread.name == "scumble-warm" for thread in threading.enumerate())


class Served:
    """`scumble serve` as a process of its own."""

    def __init__(self, data, *options):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "scumble", "serve", "--port", "0", "--no-page", "--data", str(data), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        try:
            line = self.process.stdout.readline()
            assert "/docs" in line, line
            self.client = Client(line.split("/docs")[0])
            until(self.client.ready)
        except BaseException:
            self.kill()
            raise

    def kill(self):
        self.process.kill()
        self.process.wait(20)
        self.process.stdout.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
            self.said = self.process.stdout.read()
        finally:
            self.kill()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_after_a_kill_nothing_is_lost_and_nothing_done_twice(tmp_path, photo):
    pytest.importorskip("torch", reason="needs the extra torch")
    first = Served(tmp_path)
    try:
        done = first.client.submit(photo, "great-wave")
        result = first.client.wait(done.id).data
        running = first.client.submit(photo, "irises", steps=1000)
        until(lambda: first.client.job(running.id).done >= 1)
        queued = [first.client.submit(photo, "starry-night").id for _ in range(2)]
        assert [first.client.job(job).state for job in queued] == ["queued"] * 2
    finally:
        first.kill()
    second = Served(tmp_path)
    try:
        assert second.client.result(done.id).data == result
        finished = second.client.job(done.id).finished
        for job in queued:
            assert Picture.open(second.client.wait(job).data).size == (48, 64)
        until(lambda: second.client.job(running.id).started is not None and second.client.job(running.id).done >= 1)
        second.client.cancel(running.id)
        assert second.client.wait(running.id).data
        assert second.client.job(done.id).finished == finished
        results = sorted(p.name for p in (tmp_path / "jobs").rglob("*") if p.is_file())
        assert results == ["result.jpg"] * 4, "results alone are left: no inputs, no parts"
    finally:
        second.stop()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_what_runs_when_the_service_is_stopped_waits_for_its_return(tmp_path, photo):
    pytest.importorskip("torch", reason="needs the extra torch")
    first = Served(tmp_path)
    try:
        running = first.client.submit(photo, "irises", steps=1000)
        until(lambda: first.client.job(running.id).done >= 1)
        events = first.client.events(running.id)  # somebody listens
        next(events)
    finally:
        began = time.monotonic()
        first.stop()
    assert time.monotonic() - began < 8 and "Traceback" not in first.said
    from scumble.serve.store import Store

    store = Store(tmp_path, 10**9, 10, 100)
    job = store.get(running.id)
    store.close()
    assert (job.state, job.owner, job.attempts) == ("queued", None, 0)


def test_a_free_port_and_a_taken_one(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "scumble", "serve", "--port", str(port), "--data", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: can't listen on 127.0.0.1, port {port} (address already in use); choose another with --port\n"


def test_an_open_door_has_to_be_asked_for(tmp_path):
    command = [sys.executable, "-m", "scumble", "serve", "--host", "0.0.0.0", "--data", str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if k != "SCUMBLE_TOKEN"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 0.0.0.0 can be reached by others, so a token is needed: give --token or SCUMBLE_TOKEN")
