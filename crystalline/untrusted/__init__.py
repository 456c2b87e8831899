"""The floor that every file from outside stands on: opened, bounded, parsed, checked, shown.

Models, runs, caches and texts come from other people.  Whoever reads or writes such a
file goes through this package:

    opening   regular files only, never blocking, never more than a limit; what we write or
              remove is what we made: no links are followed, names fit their pattern
    parsing   JSON and TOML with bounds on size, depth and numbers
    records   one table of fields, with type and range, for each kind of file
    text      what others wrote, made safe for a terminal and short enough for a message

It knows nothing of models and runs: which limits hold for which file, and what a refusal
means to a user, is left to the packages above.  A file that is refused raises `OSError`
(`RefusedFile` where the system itself would have let us), content that is refused
`BadContent`, a `ValueError`.  Both carry one clause that fits behind "cannot be read".
"""

from crystalline.untrusted.opening import (
    RefusedFile,
    open_ours,
    open_regular,
    read_bytes,
    read_stream,
    real_directory,
)
from crystalline.untrusted.parsing import BadContent, parse_json, parse_toml
from crystalline.untrusted.records import Field, Record
from crystalline.untrusted.text import for_terminal, message, one_line, printable, shown

__all__ = [
    "BadContent",
    "Field",
    "Record",
    "RefusedFile",
    "for_terminal",
    "message",
    "one_line",
    "open_ours",
    "open_regular",
    "parse_json",
    "parse_toml",
    "printable",
    "read_bytes",
    "read_stream",
    "real_directory",
    "shown",
]
