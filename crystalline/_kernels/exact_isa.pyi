from typing import Final

LEVELS: Final[tuple[str, ...]]

def level() -> str: ...
