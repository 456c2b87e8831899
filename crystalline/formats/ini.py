"""Settings files in the INI form: sections, and a name and a text in every line.

    [training]
    learning_rate = 0.001   # or ; and a remark
    data = notes/
           letters/         # a further line of the same

Lines before the first section belong to none.  Texts may stand in quotation marks.  What type a
text is of, its setting says.
"""

from __future__ import annotations

import configparser
from pathlib import Path

from crystalline.errors import UsageError
from crystalline.untrusted import shown
from crystalline.untrusted.files import RUN_CONFIG

SUFFIXES = frozenset({".conf", ".ini"})
_TOP = "\0"  # the name of no section


def read_ini(path: Path) -> dict[str, str | dict[str, str]]:
    """Read an INI file: a table for each section, beside the lines before the first.

    Raises `UsageError` when it is missing, in another form, or may not be read.
    """
    parser = configparser.ConfigParser(
        default_section="\0\0", interpolation=None, inline_comment_prefixes=("#", ";")
    )
    try:
        text = RUN_CONFIG.read_bytes(path).decode()
        parser.read_string(f"[{_TOP}]\n{text}")
    except OSError as error:
        denied = isinstance(error, PermissionError)
        raise UsageError(
            f"the settings file {path} cannot be read ({error.strerror})",
            advice="Check its permissions." if denied else "Check the path.",
        ) from None
    except UnicodeDecodeError:
        raise _unusable(path, "it is not UTF-8") from None
    except (configparser.Error, AttributeError) as error:  # the latter of a line before any name
        raise _unusable(path, _reason(error)) from None
    found: dict[str, str | dict[str, str]] = {}
    found.update(_values(parser[_TOP]))
    found.update({name: _values(parser[name]) for name in parser.sections() if name != _TOP})
    return found


def _values(section: configparser.SectionProxy) -> dict[str, str]:
    return {name: _bare(text) for name, text in section.items()}


def _bare(text: str) -> str:
    """Return a text without the quotation marks around it.

    >>> _bare("'my notes'"), _bare('"'), _bare("5")
    ('my notes', '"', '5')
    """
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if is_quoted else text


def _reason(error: Exception) -> str:
    """Return the first sentence of what is wrong, with the number of its line in the file."""
    number = getattr(error, "lineno", None)
    if isinstance(error, configparser.ParsingError) and error.errors:
        number = error.errors[0][0]
    if isinstance(error, configparser.DuplicateOptionError):
        what = f"'{shown(error.option)}' is given twice"
    elif isinstance(error, configparser.DuplicateSectionError):
        what = f"the section [{shown(error.section)}] is there twice"
    else:
        what = "a line is no NAME = VALUE"
    return what if number is None else f"{what} (line {number - 1})"


def _unusable(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"the settings file {path} cannot be used: {reason}",
        advice="Lines look like: learning_rate = 0.001.",
    )
