import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from scumble.errors import InputError
from scumble.serve.store import ATTEMPTS, LEASE, ORPHAN, FullError, Store


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    made = Store(tmp_path, disk=1_000_000, queue=3, retention=100, clock=clock)
    yield made
    made.close()


def add(store, size=10):
    return store.add("picture", "{}", {"content": b"x" * size})


def test_a_job_goes_its_way(store, clock):
    job = add(store)
    assert (job.state, job.bytes, store.path(job.id, "content").read_bytes()) == ("queued", 10, b"x" * 10)
    clock.now += 5
    claimed = store.claim("me")
    assert (claimed.id, claimed.state, claimed.started, claimed.attempts) == (job.id, "running", 1005, 1)
    assert store.claim("you") is None
    store.progress(job.id, "me", 3, 9, 0.5)
    assert (store.get(job.id).done, store.get(job.id).total, store.get(job.id).loss) == (3, 9, 0.5)
    assert store.end(job.id, "me", "done", result="result.png", media="image/png", bytes=4)
    ended = store.get(job.id)
    assert (ended.state, ended.ended, ended.expires, ended.result) == ("done", True, 1105, "result.png")
    assert store.claim("me") is None


def test_the_oldest_comes_first(store, clock):
    jobs = []
    for _ in range(3):
        jobs.append(add(store).id)
        clock.now += 1
    assert [store.claim("me").id for _ in range(3)] == jobs


def test_a_lease_that_runs_out_gives_the_job_to_another(store, clock):
    job = add(store)
    store.claim("dead")
    clock.now += LEASE - 1
    assert store.renew(job.id, "dead") is not None
    clock.now += LEASE - 1
    assert store.claim("alive") is None
    clock.now += 2
    assert store.claim("alive").id == job.id
    assert store.renew(job.id, "dead") is None
    assert not store.end(job.id, "dead", "done", result="result.png"), "who has lost it can't end it"
    assert store.get(job.id).state == "running"


def test_a_job_that_still_runs_is_not_begun_twice(store, clock):
    job = add(store)
    for _ in range(ATTEMPTS):
        store.claim("me")
        clock.now += LEASE + 1
        assert store.claim("me", [job.id]) is None
        assert store.get(job.id).state == "running"
    assert store.renew(job.id, "me") is not None


def test_a_job_that_kills_its_process_again_and_again_fails(store, clock):
    job = add(store)
    for _ in range(ATTEMPTS):
        assert store.claim("me").id == job.id
        clock.now += LEASE + 1
    assert store.claim("me") is None
    assert store.get(job.id).state == "failed"
    assert store.get(job.id).error == "the job ended the service 3 times and is not tried again"
    clock.now += 101
    store.sweep()
    assert store.get(job.id) is None


def test_a_job_that_was_put_back_loses_no_attempt(store):
    job = add(store)
    for _ in range(ATTEMPTS + 2):
        assert store.claim("me").id == job.id
        store.put_back(job.id, "me")
    assert store.get(job.id).state == "queued"


def test_a_job_is_claimed_by_one_alone(tmp_path):
    stores = [Store(tmp_path, 10**6, 100, 100) for _ in range(4)]  # as many processes would
    for _ in range(20):
        add(stores[0])
    together = threading.Barrier(4)

    def claim_all(store):
        together.wait(5)
        claimed = []
        while (job := store.claim(str(id(store)))) is not None:
            claimed.append(job.id)
        return claimed

    with ThreadPoolExecutor(4) as pool:
        claimed = [job for jobs in pool.map(claim_all, stores) for job in jobs]
    assert len(claimed) == len(set(claimed)) == 20
    for store in stores:
        store.close()


def test_cancelling(store):
    waits, runs = add(store), add(store)
    store.claim("me")
    store.cancel(waits.id)
    store.cancel(runs.id)
    states = {store.get(job.id).state: store.get(job.id).cancel for job in (waits, runs)}
    assert states == {"running": 1, "cancelled": 0} or states == {"running": 1}
    assert store.used() == 10, "whose files are deleted takes no room"


def test_the_queue_and_the_disk_have_an_end(store):
    with pytest.raises(FullError, match="disk space"):
        add(store, 1_000_001)
    assert not any((store.folder / "jobs").iterdir()), "what was refused leaves nothing"
    for _ in range(3):
        add(store)
    with pytest.raises(FullError, match="3 jobs are waiting already"):
        add(store)
    assert store.used() == 30


def test_what_has_expired_goes_with_its_files(store, clock):
    job, other = add(store), add(store)
    claimed = store.claim("me")
    store.end(claimed.id, "me", "done", bytes=0)
    left = other if claimed.id == job.id else job
    clock.now += 99
    store.sweep()
    assert store.get(claimed.id) is not None
    clock.now += 2
    store.sweep()
    assert store.get(claimed.id) is None
    assert not store.path(claimed.id).exists()
    assert store.path(left.id).exists(), "what has not ended does not expire"


def test_inputs_go_with_the_end_of_a_job_if_its_worker_could_not_delete_them(store, clock):
    jobs = [add(store) for _ in range(2)]
    ended = store.claim("me")
    waits = next(job for job in jobs if job.id != ended.id)
    store.path(ended.id, "result.png").write_bytes(b"painted")
    store.path(ended.id, ".result.parts").mkdir()
    store.end(ended.id, "me", "done", result="result.png", bytes=7)
    store.sweep()
    assert [p.name for p in store.path(ended.id).iterdir()] == ["result.png"]
    assert [p.name for p in store.path(waits.id).iterdir()] == ["content"]


def test_folders_that_nobody_knows_go(store, clock):
    folder = store.folder / "jobs" / ("x" * 22)
    folder.mkdir()
    made = folder.stat().st_mtime
    clock.now = made + ORPHAN - 10
    store.sweep()
    assert folder.exists()
    clock.now = made + ORPHAN + 10
    store.sweep()
    assert not folder.exists()


def test_a_job_that_runs_can_not_be_deleted(store):
    job = add(store)
    store.claim("me")
    store.delete(job.id)
    assert store.get(job.id) is not None
    assert store.path(job.id, "content").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../../etc", "a/b", "x" * 23, "é" * 22])
def test_no_id_is_a_path(store, name):
    assert store.get(name) is None
    with pytest.raises(ValueError, match="not the id"):
        store.path(name)


def test_all_is_there_after_a_restart(tmp_path):
    first = Store(tmp_path, 10**6, 10, 100)
    job = add(first)
    first.close()
    second = Store(tmp_path, 10**6, 10, 100)
    assert second.get(job.id) == job
    assert second._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    second.close()


def test_a_folder_that_can_not_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file \((not a directory|file exists)\); choose another folder with --data"):
        Store(tmp_path / "file", 10**6, 10, 100)
    (tmp_path / "jobs.sqlite3").write_text("this is no database, however long it may be read" * 100)
    with pytest.raises(InputError, match="jobs can't be kept"):
        Store(tmp_path, 10**6, 10, 100)


def test_a_transaction_that_fails_changes_nothing(store):
    with pytest.raises(sqlite3.Error), store._transaction():
        store._db.execute("INSERT INTO jobs (id, kind, state, request, created, bytes) VALUES ('a', 'b', 'queued', '', 0, 0)")
        store._db.execute("no statement")
    assert store.count("queued") == 0
