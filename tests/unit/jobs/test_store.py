"""One suite over both databases: what is promised does not depend on where jobs lie."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text

from muybridge.errors import ConfigError, QueueFullError, StoreError
from muybridge.jobs import database, queue_order, tables
from muybridge.jobs.record import Failure, Job, Limits, New, Outcome, Progress, Redo, WorkerState, is_job_id
from muybridge.jobs.store import JobStore, Search

OUTCOME = Outcome({"video": "results/x"}, 64, 48, 16, 8.0, 2**40, 1.5, {"load": 0.5}, 100.0)


def new(name: str = "", owner: str = "me", model: str = "m", **values: Any) -> New:
    return New(owner, {"prompt": name}, model, text=name, **values)


def insert(store: JobStore, *names: str, **values: Any) -> list[Job]:
    return [store.insert(new(name, **values)) for name in names]


def taken(store: JobStore, count: int, loaded: tuple[str, ...] = ()) -> list[str]:
    jobs = [store.claim("w", loaded) for _ in range(count)]
    return [job.text for job in jobs if job is not None]


def test_a_job_is_what_was_asked_for(store: JobStore) -> None:
    made = store.insert(new("a", seed=2**62, cost={"fits": True}, uploads=("upload_1",), redo=Redo("video_x", (1, 2))))
    assert store.get(made.id) == made
    assert (made.status, made.attempts, made.progress, made.priority) == ("queued", 0, 0, 0)
    assert (made.request, made.seed, made.cost, made.uploads) == ({"prompt": "a"}, 2**62, {"fits": True}, ("upload_1",))
    assert made.redo == Redo("video_x", (1, 2))
    assert is_job_id(made.id)
    assert abs(made.created - time.time()) < 60


def test_a_job_goes_its_way(store: JobStore) -> None:
    (made,) = insert(store, "a")
    job = store.claim("w")
    assert job is not None
    assert (job.id, job.status, job.worker, job.attempts) == (made.id, "in_progress", "w", 1)
    assert store.claim("other") is None
    assert not store.beat(job.id, "w", Progress("denoise", 3, 10, progress=30)).lost
    assert not store.beat(job.id, "w", Progress("encode", progress=10)).lost
    seen = store.get(job.id)
    assert seen is not None
    assert (seen.phase, seen.progress) == ("encode", 30)  # never back
    store.beat(job.id, "w", Progress("write", 10, 10, progress=100))
    seen = store.get(job.id)
    assert seen is not None
    assert seen.progress == 99  # not before the file is there
    assert store.finish(job.id, "w", OUTCOME, keep_seconds=100)
    done = store.get(job.id)
    assert done is not None
    assert done.finished is not None
    assert (done.status, done.progress, done.seed, done.results) == ("completed", 100, 2**40, {"video": "results/x"})
    assert done.expires == pytest.approx(done.finished + 100)


def test_nobody_ends_a_job_of_another(store: JobStore) -> None:
    insert(store, "a")
    job = store.claim("w")
    assert job is not None
    assert store.beat(job.id, "other").lost
    assert store.watch(job.id, "other").lost
    assert not store.finish(job.id, "other", OUTCOME)
    assert not store.fail(job.id, "other", Failure("internal", "no"))
    assert not store.give_back(job.id, "other")
    assert store.finish(job.id, "w", OUTCOME)
    assert not store.finish(job.id, "w", OUTCOME)
    assert not store.fail(job.id, "w", Failure("internal", "no"))


def test_jobs_of_others_are_not_there(store: JobStore) -> None:
    (job,) = insert(store, "a")
    assert store.get(job.id, "you") is None
    assert store.cancel(job.id, "you") is None
    assert store.retry(job.id, "you") is None
    assert store.move(job.id, None, "you") is None
    assert store.prioritise(job.id, 3, "you") is None
    assert store.delete(job.id, "you") is None
    assert store.page(Search(owner="you")) == ([], False)
    assert store.changed_since(0, "you") == []
    assert store.counts("you").by_status["queued"] == 0


def test_priority_goes_before_the_order_of_arrival(store: JobStore) -> None:
    first, second, third = insert(store, "a", "b", "c")
    store.prioritise(second.id, 5)
    ids = [each.id for each in (first, second, third)]
    assert store.queue_positions(ids) == dict(zip(ids, (2, 1, 3), strict=True))
    assert taken(store, 4) == ["b", "a", "c"]
    assert store.queue_positions([first.id]) == store.queue_positions([]) == {}
    with pytest.raises(ConfigError, match="in_progress"):
        store.prioritise(first.id, 1)


def test_an_owner_moves_jobs_among_their_own_places(store: JobStore) -> None:
    a, _, c, d = (
        store.insert(new(name, owner)) for name, owner in (("a", "me"), ("x", "you"), ("c", "me"), ("d", "me"))
    )
    store.move(d.id, a.id, "me")
    assert [job.text for job in store.queue()] == ["d", "x", "a", "c"]
    store.move(d.id, None, "me")
    assert [job.text for job in store.queue()] == ["a", "x", "c", "d"]
    store.move(c.id, c.id, "me")
    assert [job.text for job in store.queue()] == ["a", "x", "c", "d"]
    assert [job.text for job in store.queue("me", limit=2)] == ["a", "c"]
    with pytest.raises(ConfigError, match="does not wait"):
        store.move(c.id, "video_" + "0" * 32, "me")


def test_loaded_models_go_first_but_not_for_ever(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    insert(store, "other", model="b")
    insert(store, *"123456", model="a")
    assert taken(store, 8, ("a",)) == ["1", "2", "3", "4", "other", "5", "6"]
    insert(store, "other", model="b")
    insert(store, "7", "8", model="a")
    monkeypatch.setattr(queue_order, "MOST_WAIT_S", 0.0)
    assert taken(store, 3, ("a",)) == ["7", "other", "8"]
    monkeypatch.undo()
    store.insert(new("urgent", model="b", priority=1))
    insert(store, "9", model="a")
    assert taken(store, 2, ("a",)) == ["urgent", "9"]


def test_one_key_makes_one_job(store: JobStore) -> None:
    first = store.insert(new("a", idempotency_key="k"))
    assert store.insert(new("a", idempotency_key="k")).id == first.id
    assert store.insert(new("a", "you", idempotency_key="k")).id != first.id
    assert len({job.id for job in insert(store, "a", "a")}) == 2
    with pytest.raises(ConfigError, match="another request"):
        store.insert(new("b", idempotency_key="k"))


def test_a_queue_has_an_end(store: JobStore) -> None:
    insert(store, "a", "b")
    with pytest.raises(QueueFullError, match="2 of your videos") as error:
        store.insert(new("c"), Limits(10, 2))
    assert error.value.retry_after > 0
    with pytest.raises(QueueFullError, match="full"):
        store.insert(new("c", "you"), Limits(2, 2))
    store.claim("w")
    store.insert(new("c"), Limits(10, 2))


def test_cancelling(store: JobStore) -> None:
    waiting, busy = insert(store, "a", "b")
    store.move(busy.id, waiting.id)
    store.claim("w")
    now = store.cancel(waiting.id)
    assert now is not None
    assert (now.status, now.error_code) == ("failed", "cancelled")
    later = store.cancel(busy.id)
    assert later is not None
    assert (later.status, later.cancel_requested) == ("in_progress", True)
    assert store.watch(busy.id, "w").cancel
    assert store.beat(busy.id, "w").cancel
    assert store.finish(busy.id, "w", OUTCOME)  # it was faster
    done = store.cancel(busy.id)
    assert done is not None
    assert done.status == "completed"


def test_trying_again(store: JobStore) -> None:
    (job,) = insert(store, "a")
    with pytest.raises(ConfigError, match="queued"):
        store.retry(job.id)
    store.cancel(job.id)
    again = store.retry(job.id)
    assert again is not None
    assert (again.status, again.attempts, again.error_code, again.finished) == ("queued", 0, None, None)
    assert taken(store, 1) == ["a"]


def test_giving_back_is_no_attempt(store: JobStore) -> None:
    insert(store, "a", "b")
    for _ in range(5):
        job = store.claim("w")
        assert job is not None
        assert (job.text, job.attempts) == ("a", 1)
        assert store.give_back(job.id, "w")


def fall_silent(store: JobStore) -> None:
    """As if a lease had gone by."""
    with store._database.quiet_write() as connection:
        connection.execute(tables.jobs.update().values(lease_until=tables.jobs.c.lease_until - 31))


def test_silent_workers_lose_their_jobs(store: JobStore) -> None:
    (made,) = insert(store, "a")
    for attempt in (1, 2, 3):
        job = store.claim(f"w{attempt}")
        assert job is not None
        assert job.attempts == attempt
        assert store.reap() == []
        fall_silent(store)
        assert [each.id for each in store.reap()] == [made.id]
        assert store.beat(made.id, f"w{attempt}").lost
    last = store.get(made.id)
    assert last is not None
    assert (last.status, last.error_code) == ("failed", "worker_lost")
    assert store.claim("w") is None


def test_a_beat_renews_the_lease(store: JobStore) -> None:
    (job,) = insert(store, "a")
    store.claim("w")
    fall_silent(store)
    assert not store.beat(job.id, "w").lost
    assert store.reap() == []


def test_a_cancelled_job_of_a_silent_worker_is_over(store: JobStore) -> None:
    (job,) = insert(store, "a")
    store.claim("w")
    store.cancel(job.id)
    (found,) = store.abandon("w")
    assert (found.status, found.error_code) == ("failed", "cancelled")


def test_the_job_of_a_dead_worker_waits_again_at_once(store: JobStore) -> None:
    insert(store, "a", "b")
    store.claim("w")
    store.claim("other")
    assert [job.text for job in store.abandon("w")] == ["a"]
    assert store.counts().by_status == {"queued": 1, "in_progress": 1, "completed": 0, "failed": 0}


def test_no_sign_of_life_keeps_the_job_of_a_dead_worker(store: JobStore) -> None:
    (job,) = insert(store, "a")
    ends = threading.Event()

    def beat() -> None:
        while not ends.is_set():
            store.beat(job.id, "w")

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        for _ in range(30):
            assert store.claim("w") is not None
            assert [each.status for each in store.abandon("w", is_to_blame=False)] == ["queued"]
    finally:
        ends.set()
        thread.join()


def test_a_worker_that_was_stopped_cost_no_attempt(store: JobStore) -> None:
    insert(store, "a")
    store.claim("w")
    assert [job.attempts for job in store.abandon("w", is_to_blame=False)] == [0]


def test_a_lease_of_an_earlier_start_of_the_machine_is_over(store: JobStore) -> None:
    insert(store, "a")
    store.claim("w")
    with store._database.quiet_write() as connection:
        connection.execute(tables.jobs.update().values(lease_until=tables.jobs.c.lease_until + 1e6))
    assert [job.text for job in store.reap()] == ["a"]


def test_setting_the_clock_ends_no_lease(opened: Callable[..., JobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    insert(store, "a")
    store.claim("w")
    monkeypatch.setattr(database.time, "time", lambda: 4e9)
    assert store.reap() == []


def test_pages(store: JobStore) -> None:
    insert(store, *(f"Video {index}" for index in range(7)))
    first, more = store.page(limit=3)
    assert ([job.text for job in first], more) == (["Video 6", "Video 5", "Video 4"], True)
    second, more = store.page(after=first[-1].id, limit=3)
    assert ([job.text for job in second], more) == (["Video 3", "Video 2", "Video 1"], True)
    last, more = store.page(after=second[-1].id, limit=3)
    assert ([job.text for job in last], more) == (["Video 0"], False)
    assert [job.text for job in store.page(limit=2, order="asc")[0]] == ["Video 0", "Video 1"]
    assert [job.text for job in store.page(Search(text="vIDeO 3"))[0]] == ["Video 3"]
    assert store.page(Search(text="%"))[0] == []
    assert store.page(Search(model="other"))[0] == []
    store.claim("w")
    assert [job.text for job in store.page(Search(status="in_progress"))[0]] == ["Video 0"]
    with pytest.raises(ConfigError, match="no video"):
        store.page(after="video_x")


def test_changes_and_removals_are_told(store: JobStore) -> None:
    first, second = insert(store, "a", "b")
    before = store.revision()
    assert [job.id for job in store.changed_since(0)] == [first.id, second.id]
    assert store.changed_since(before) == []
    store.claim("w")
    store.beat(first.id, "w")  # a sign of life is no news
    store.delete(second.id)
    (changed,) = store.changed_since(before)
    assert (changed.id, changed.status) == (first.id, "in_progress")
    assert store.removed_since(before) == [second.id]
    assert store.removed_since(before, "you") == []


def test_waiting_for_news(opened: Callable[..., JobStore]) -> None:
    store, other = opened(), opened()
    news = store.news()
    try:
        while news.wait(0.05):
            pass
        thread = threading.Timer(0.05, lambda: insert(other, "a"))
        started = time.monotonic()
        thread.start()
        assert news.wait(10)
        assert time.monotonic() - started < 5
        thread.join()
    finally:
        news.close()


def test_deleting(store: JobStore) -> None:
    (job,) = insert(store, "a")
    store.claim("w")
    assert store.delete(job.id) is not None
    assert store.delete(job.id) is None
    assert store.beat(job.id, "w").lost
    assert not store.finish(job.id, "w", OUTCOME)


def test_expired_and_finished(store: JobStore) -> None:
    insert(store, "a", "b", "c")
    for keep in (-1.0, 1000.0, None):
        job = store.claim("w")
        assert job is not None
        store.finish(job.id, "w", OUTCOME, keep)
    assert [job.text for job in store.expired()] == ["a"]
    assert [job.text for job in store.finished(2)] == ["a", "b"]
    assert len(store.finished_before(0)) == 3
    assert store.finished_before(1000) == []


def test_uploads_in_use(store: JobStore) -> None:
    store.insert(new("a", uploads=("upload_1", "upload_2")))
    assert store.uploads_in_use(["upload_2", "upload_3"]) == {"upload_2"}
    assert store.uploads_in_use([]) == set()


def test_a_great_many_uploads(store: JobStore) -> None:
    insert(store, "a", uploads=("upload_1999",))
    assert store.uploads_in_use([f"upload_{number:04}" for number in range(2000)]) == {"upload_1999"}
    assert store.uploads_in_use([]) == set()


def test_workers_and_models(store: JobStore) -> None:
    store.beat_worker(WorkerState("w", "cpu", "here", 1, "idle", loaded=("m",)))
    store.beat_worker(WorkerState("w", "cpu", "here", 1, "busy", job="video_1"))
    (found,) = store.workers()
    assert (found.state, found.job, found.loaded, found.is_alive) == ("busy", "video_1", (), True)
    store.remove_worker("w")
    assert store.workers() == []
    store.set_models({"m": {"takes": ["keyframes"]}})
    store.set_models({"n": {"takes": []}})
    assert store.models() == {"n": {"takes": []}}
    store.check_writable()


def test_many_claim_at_once_and_each_job_has_one(opened: Callable[..., JobStore]) -> None:
    store = opened()
    insert(store, *map(str, range(40)))
    found: list[str] = []

    def work(worker: str) -> None:
        own = opened()
        while (job := own.claim(worker)) is not None:
            found.append(job.id)
            assert own.finish(job.id, worker, OUTCOME)

    threads = [threading.Thread(target=work, args=(f"w{index}",)) for index in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert Counter(found).most_common(1)[0][1] == 1
    assert store.counts().by_status["completed"] == 40


def test_a_store_of_a_newer_version_is_refused(opened: Callable[..., JobStore], url: str) -> None:
    store = opened()
    with store._database.quiet_write() as connection:
        connection.execute(tables.meta.update().where(tables.meta.c.name == "version").values(value=99))
    with pytest.raises(StoreError, match="newer version"):
        JobStore.open(url)


def test_an_older_store_is_migrated_after_a_copy(
    opened: Callable[..., JobStore], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = insert(opened(), "a")

    def to_two(connection: Connection) -> None:
        connection.execute(text("alter table jobs add column mood text default 'calm'"))

    monkeypatch.setattr(tables, "SCHEMA_VERSION", 2)
    monkeypatch.setitem(tables.MIGRATIONS, 1, to_two)
    assert opened().get(job.id) == job
    assert opened().get(job.id) == job  # and not once more
    with opened()._database.read() as connection:
        assert connection.execute(text("select mood from jobs")).scalar_one() == "calm"
    copied = "jobs_version_1" if url.startswith("postgres") else "jobs"
    place = url.replace("postgresql", "postgresql+psycopg") if url.startswith("postgres") else f"{url}.version-1"
    engine = create_engine(place)
    with engine.connect() as connection:
        columns = connection.execute(text(f"select * from {copied}")).one()._mapping
    engine.dispose()
    assert columns["id"] == job.id
    assert "mood" not in columns


def test_another_database_is_left_alone(url: str) -> None:
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text("create table guests (name text)"))
    engine.dispose()
    with pytest.raises(StoreError, match="other tables"):
        JobStore.open(url)


def test_a_list_of_ten_thousand_is_quick(store: JobStore) -> None:
    with store._database.write() as (connection, revision):
        row = {"owner": "me", "status": "queued", "request": {}, "model": "m", "created": 1.0, "revision": revision}
        rows = [{**row, "id": f"video_{n:032x}", "number": n + 10, "position": float(n + 10)} for n in range(10_000)]
        connection.execute(tables.jobs.insert(), rows)
    started = time.process_time()
    page, more = store.page(Search(owner="me"), limit=100)
    assert store.queue_positions([page[0].id]) == {page[0].id: 10_000}
    assert store.claim("w") is not None
    assert more
    assert time.process_time() - started < 1.0
