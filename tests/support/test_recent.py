from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from fsmis_components.support.recent import RecentResults


def test_one_worker_makes_what_all_wait_for() -> None:
    keeper: RecentResults[object] = RecentResults(2)
    made: list[object] = []
    meet = threading.Barrier(4)

    def make() -> object:
        made.append(object())
        return made[-1]

    def ask(_: int) -> object:
        meet.wait()
        return keeper.get("key", make)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(ask, range(4)))
    assert len(made) == 1 and all(result is made[0] for result in results)


def test_the_least_recently_used_goes_first() -> None:
    keeper: RecentResults[int] = RecentResults(2)
    calls: list[str] = []

    def get(key: str) -> None:
        keeper.get(key, lambda: calls.append(key) or 1)  # type: ignore[func-returns-value]

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert calls == ["a", "b", "c", "b"]
