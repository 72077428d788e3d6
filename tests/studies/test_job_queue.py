"""Jobs that share what is computed once come together; the first computes it; a death does not lose a job."""

from __future__ import annotations

from dataclasses import dataclass

from budwood.studies.job_queue import JobQueue


@dataclass(frozen=True)
class Job:
    id: str
    group: str = "g"
    repeat: int = 0


def _names(queue: JobQueue[Job]) -> list[str]:
    return [job.id for job in queue.waiting]


def test_groups_come_in_the_order_of_the_rows_and_first_repeats_first() -> None:
    rows = [("a", "x"), ("b", "y"), ("c", "x")]
    queue = JobQueue([Job(f"{row}{repeat}", group, repeat) for row, group in rows for repeat in (0, 1)])
    assert _names(queue) == ["a0", "c0", "a1", "c1", "b0", "b1"]


def test_the_first_of_a_group_computes_what_the_others_wait_for() -> None:
    queue = JobQueue([Job("a", "x"), Job("b", "x"), Job("c", "y")])
    first, second = queue.take(), queue.take()
    assert first
    assert second
    assert (first.id, second.id) == ("a", "c"), "b waits for what a computes"
    assert queue.take() is None
    queue.finish(first, seconds=1.0)
    third = queue.take()
    assert third
    assert third.id == "b"
    assert [job.id for job in queue.running] == ["c", "b"]


def test_a_warm_group_is_carried_out_side_by_side() -> None:
    queue = JobQueue([Job("a"), Job("b"), Job("c")])
    first = queue.take()
    assert first
    queue.finish(first, seconds=1.0)
    assert queue.take()
    assert queue.take()
    assert queue.waiting == ()


def test_where_the_first_of_a_group_fails_the_next_one_is_first() -> None:
    queue = JobQueue([Job("a"), Job("b"), Job("c")])
    first = queue.take()
    assert first
    queue.finish(first)
    assert queue.take() == Job("b")
    assert queue.take() is None


def test_twins_are_not_carried_out_at_once() -> None:
    queue = JobQueue([Job("a", "x"), Job("a", "y")])
    first = queue.take()
    assert first
    assert queue.take() is None
    queue.finish(first, seconds=1.0)
    assert queue.take() == Job("a", "y")


def test_a_job_whose_worker_died_waits_at_the_front_and_so_does_not_lose_its_group() -> None:
    queue = JobQueue([Job("a"), Job("b")])
    first = queue.take()
    assert first
    assert queue.retry(first)
    assert _names(queue) == ["a", "b"]
    assert queue.running == ()
    assert queue.take() == first


def test_a_job_is_given_out_only_so_often() -> None:
    queue = JobQueue([Job("a")], tries=3)
    for again in (True, True, False):
        job = queue.take()
        assert job
        assert queue.retry(job) is again
    assert queue.running == (Job("a"),), "it has yet to be finished"
    queue.finish(Job("a"))
    assert queue.take() is None


def test_a_job_that_never_waited_counts_as_running() -> None:
    queue: JobQueue[Job] = JobQueue()
    queue.start(Job("trial"))
    assert queue.running == (Job("trial"),)
    queue.finish(Job("trial"), seconds=2.0)
    assert not queue.running


def test_the_time_left_is_that_of_the_same_group_where_it_is_known() -> None:
    queue = JobQueue([Job("a", "x"), Job("b", "x"), Job("c", "y"), Job("d", "z")])
    assert queue.estimate_seconds() is None
    for seconds in (10.0, 2.0):
        job = queue.take()
        assert job
        queue.finish(job, seconds)
    assert _names(queue) == ["c", "d"]
    assert queue.estimate_seconds() == 12.0
    assert queue.estimate_seconds(further=2) == 24.0
    job = queue.take()
    assert job
    queue.finish(job, 60.0)
    assert queue.estimate_seconds() == 24.0
