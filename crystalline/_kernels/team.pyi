from types import TracebackType
from typing import final

@final
class Team:
    threads: int
    def __init__(self, threads: int = 0) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Team: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

def exercise(team: Team, *, stages: int) -> tuple[int, float]: ...
