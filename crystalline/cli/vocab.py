"""cllm-vocab: look into the numbers of a vocabulary: primes, factors, roots and places.

    cllm-vocab inspect running --from RUN
    cllm-vocab affixes --data FILES --tokenizer word

Here the vocabulary is found and what it says of a token gathered; how that looks
is in `vocab_view`.  Results go to stdout, messages to stderr.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from crystalline.cli.options import Quiet, Version, WhichCheckpoint
from crystalline.cli.run import called, parse_settings, run_command, version_line
from crystalline.data.crystal import CRYSTAL
from crystalline.errors import EXIT_OK, CheckpointError, DataError, UsageError
from crystalline.log import set_up_logging
from crystalline.train.config import TokenizerKind, TrainConfig
from crystalline.untrusted import message
from crystalline.untrusted.files import TOKENIZER as TOKENIZER_FILE

if TYPE_CHECKING:
    from crystalline.data.crystal.tokens import Crystal
    from crystalline.data.prepare import PreparedData
    from crystalline.data.tokenizer import GivenTokenizer

PROGRAM = "cllm-vocab"
# Lines that begin with a space stay lines; the parser would join others into one.
DESCRIPTION = """Look into the numbers of a vocabulary.

  cllm-vocab inspect running ' the' '#17' --from RUN
  cllm-vocab affixes --from RUN
  cllm-vocab roots --data texts/ --tokenizer word

A root is a prime; a token that derives from another by an affix is the product
  of both numbers: with -ing = 2, -s = 3 and run = 5, running is 2 · 5 and runs
  3 · 5. Affixes get the first primes, then the roots, the most frequent first.

inspect shows tokens, named by their text or as '#' and their id: number,
  factors, derivations, frequency, place on Ulam's spiral and on the clock of
  twelve hours, and the most similar tokens. affixes and roots list those of the
  whole vocabulary."""

ACTIONS = ("inspect", "affixes", "roots")


@dataclass(frozen=True)
class VocabSettings:
    """Every option of the command; the text under a field is its help."""

    action: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="{inspect,affixes,roots}", help_behavior_hint="(required)"),
    ] = ""
    """What to show: tokens, the affixes, or the roots with the most derivations."""
    tokens: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="[TOKEN ...]", help_behavior_hint="(of inspect)"),
    ] = ()
    """Tokens by their text, or by id as '#17'. Many begin with a space: ' the'."""
    from_: Annotated[
        str | None,
        tyro.conf.arg(
            name="from", metavar="PLACE", constructor=str, help_behavior_hint="(or --data)"
        ),
    ] = None
    """A run, a checkpoint, a folder with tokenizer.json and tokens.bin, or a crystal.json."""
    data: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="[FILE ...]", help_behavior_hint="(default: the run's own)"),
    ] = ()
    """Text to take the vocabulary from; with --from, the run's text where it has moved."""
    tokenizer: TokenizerKind = TrainConfig.tokenizer
    """How the text of --data becomes tokens: byte-level BPE, characters, words, or bytes."""
    vocab_size: int = TrainConfig.vocab_size
    """Largest vocabulary made from --data, in tokens (bpe and word)."""
    val_fraction: float = TrainConfig.val_fraction
    """Share of --data that is held out; tokens are counted in the rest."""
    checkpoint: Annotated[
        WhichCheckpoint,
        tyro.conf.arg(help="Checkpoint of a run: latest, best, step-XXXXXXXX or its name."),
    ] = None
    neighbors: int = 8
    """Similar tokens that inspect shows; 0 leaves them out."""
    top: int = 20
    """Longest list of affixes, roots or derivations; 0 is all."""
    json: bool = False
    """Print one JSON object to stdout instead of text."""
    quiet: Quiet = False
    version: Version = False

    def __post_init__(self) -> None:
        if self.version:
            return
        if self.action not in ACTIONS:
            given = f"'{self.action}' is not an action" if self.action else "no action is given"
            raise UsageError(
                f"{given} of {called(PROGRAM)}", advice="It must be inspect, affixes or roots."
            )
        if self.action == "inspect" and not self.tokens:
            raise UsageError(
                "no token is given",
                advice=f"Name one, as in: {called(PROGRAM)} inspect the --from RUN.",
            )
        if self.action != "inspect" and self.tokens:
            raise UsageError(
                f"{self.action} takes no token, and got {' '.join(self.tokens)!r}",
                advice=f"Use {called(PROGRAM)} inspect to look at tokens.",
            )
        if self.from_ is None and not self.data:
            raise UsageError(
                "no vocabulary is given",
                advice="Name a run or a folder with --from, or text with --data.",
            )
        if self.checkpoint is not None and self.from_ is None:
            raise UsageError(
                f"--checkpoint {self.checkpoint} picks from a run, and none is given",
                advice="Name the run with --from.",
            )
        for flag, value in (("--neighbors", self.neighbors), ("--top", self.top)):
            if value < 0:
                raise UsageError(f"{flag} is {value}", advice="It must be at least 0.")
        TrainConfig(vocab_size=self.vocab_size, val_fraction=self.val_fraction)  # checks both


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code (see `crystalline.errors`)."""
    return run_command(PROGRAM, _main, argv)


def _main(argv: list[str]) -> int:
    from crystalline.cli import vocab_view

    settings = parse_settings(VocabSettings, argv, program=PROGRAM, description=DESCRIPTION)
    if settings.version:
        print(version_line())
        return EXIT_OK
    set_up_logging()
    crystal, origin = find_crystal(settings)
    if settings.action == "inspect":
        tokens = [find_token(crystal, name) for name in settings.tokens]
        if not settings.quiet:
            _mention_twins(crystal, tokens)
        shown = [describe(crystal, token, settings.neighbors) for token in tokens]
        content: dict[str, Any] = {"tokens": shown}
    elif settings.action == "affixes":
        content = {"affixes": affixes(crystal, settings.top)}
    else:
        content = {"roots": roots(crystal, settings.top)}
    about = {
        "from": origin,
        "generation": crystal.generation,
        "vocab_size": crystal.vocab_size,
        "sha256": crystal.sha256,
    }
    if settings.json:
        print(json.dumps(about | content, allow_nan=False), flush=True)
    else:
        vocab_view.show(settings.action, about | content, top=settings.top)
    return EXIT_OK


# --- which vocabulary -------------------------------------------------------------------------


def find_crystal(settings: VocabSettings) -> tuple[Crystal, str]:
    """Return the crystal that the settings mean, and where it came from.

    Raises:
        CheckpointError: nothing there, or a run without a checkpoint of that name.
        DataError: there is no crystal.json and no text to make one from.
        UsageError: --checkpoint for a place that is no run.
    """
    from crystalline.data.crystal.tokens import Crystal
    from crystalline.data.prepare import crystal_in
    from crystalline.formats.checkpoint import (
        BEST,
        LATEST,
        is_there,
        latest_checkpoint,
        pointer,
        require_readable,
        resolve,
    )
    from crystalline.formats.rundir import CONFIG

    if settings.from_ is None:
        prepared = _prepare(settings, settings.data, settings)
        return _crystal_of(settings, prepared), str(prepared.token_path.parent)
    place = Path(settings.from_)
    if place.name in (LATEST, BEST) and (meant := pointer(place.parent, place.name)):
        place = meant
    _look_at(place)
    if place.is_file() and place.suffix == ".json" and place.name != "tokenizer.json":
        return Crystal.load(place), str(place)
    if place.is_file():
        place = place.parent
    if latest_checkpoint(place):
        place = resolve(place, settings.checkpoint)
    elif settings.checkpoint is not None:
        raise UsageError(
            f"--checkpoint {settings.checkpoint} picks from a run, and {place} is none",
            advice="Leave --checkpoint out, or name the run directory.",
        )
    else:
        place = place.resolve() if place.is_symlink() else place
    if is_there(place / CRYSTAL):
        require_readable(place / CRYSTAL)
        if settings.data and not settings.quiet:
            _tell(f"{called(PROGRAM)}: {place} has its numbers; --data is not needed")
        return Crystal.load(place / CRYSTAL), str(place / CRYSTAL)
    if (place / "tokens.bin").is_file():
        with _progress(settings) as progress:
            return crystal_in(place, progress), str(place)
    run = _run_of(place)
    if not (run / CONFIG).is_file():
        raise DataError(
            f"{place} has no {CRYSTAL} and nothing to count tokens in",
            advice="Name the run, or the text with --data.",
        )
    prepared = _text_of_run(settings, run, place)
    return _crystal_of(settings, prepared), str(run)


def _look_at(place: Path) -> None:
    """Raise `CheckpointError` where there is neither a file nor a folder."""
    problem = f"there is no run, checkpoint or tokenizer at {place}"
    try:
        place.stat()
        if place.is_file() or place.is_dir():
            return
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # a name too long, a folder that may not be entered
        problem = f"{place} cannot be looked into ({error.strerror})"
    raise CheckpointError(problem, advice="Check the path for a typing error.")


def _run_of(place: Path) -> Path:
    from crystalline.formats.checkpoint import locate

    found = locate(place.resolve())
    return found[0] if found else place


def _text_of_run(settings: VocabSettings, run: Path, place: Path) -> PreparedData:
    """Prepare the text of a run as the run did; what is not that very text is refused."""
    from crystalline.data.tokenizer import GivenTokenizer
    from crystalline.formats.checkpoint import STATE, TOKENIZER, inspect_checkpoint
    from crystalline.formats.rundir import CONFIG
    from crystalline.formats.sources import open_source
    from crystalline.runs.layers import toml_layer
    from crystalline.runs.settings import DISPLAY, RunSettings

    try:
        vocabulary = TOKENIZER_FILE.read_bytes(place / TOKENIZER)
    except OSError as error:
        raise DataError(
            f"{place} has no crystal.json, and its {TOKENIZER} cannot be read ({error.strerror})",
            advice="Name a run with a checkpoint, or text with --data alone.",
        ) from None
    stored, _ = toml_layer(RunSettings, run / CONFIG, tolerate=DISPLAY)
    shaping = ("tokenizer", "vocab_size", "val_fraction")
    own = TrainConfig(**{name: stored[name] for name in shaping if name in stored})
    advice = "Name the text that it was trained on with --data."
    given = None
    if stored.get("init_from"):  # its tokenizer was another model's first
        source = open_source(place)
        given = GivenTokenizer(source.tokenizer(), vocabulary, source.config.vocab_size)
    paths, text_field = settings.data or stored.get("data", ()), stored.get("text_field")
    try:
        prepared = _prepare(settings, paths, own, text_field, given)
    except DataError as error:
        raise DataError(
            f"{place} has no crystal.json, and its text cannot be counted: {error.message}",
            advice=advice,
        ) from None
    expected = None
    if (place / STATE).is_file():
        expected = inspect_checkpoint(place, verify=False).state.get("tokens_sha256")
    if (
        prepared.tokenizer_path.read_bytes() != vocabulary
        or (expected or prepared.tokens_sha256) != prepared.tokens_sha256
    ):
        raise DataError(
            f"{prepared.description} is not the text that {place} was trained on", advice=advice
        )
    return prepared


def _prepare(
    settings: VocabSettings,
    paths: Sequence[str],
    how: VocabSettings | TrainConfig,
    text_field: str | None = None,
    given: GivenTokenizer | None = None,
) -> PreparedData:
    from crystalline.data.prepare import prepare

    with _progress(settings) as progress:
        return prepare(
            paths or None,
            kind=how.tokenizer,
            vocab_size=how.vocab_size,
            val_fraction=how.val_fraction,
            text_field=text_field,
            given=given,
            progress=progress,
        )


def _crystal_of(settings: VocabSettings, prepared: PreparedData) -> Crystal:
    from crystalline.data.prepare import crystal_of

    with _progress(settings) as progress:
        return crystal_of(prepared, progress)


def _progress(settings: VocabSettings) -> Any:
    from crystalline.ui import DataProgress

    return DataProgress(quiet=settings.quiet)


def find_token(crystal: Crystal, name: str) -> int:
    """Return the token that a text or '#ID' names.

    A text that is no token is also looked for with a space before it, as words have it in
    most vocabularies.  Raises `DataError` with the closest entries when there is none.
    """
    token = crystal.find(name)
    if token is None and name.startswith("#") and name[1:].isascii() and name[1:].isdigit():
        # int() refuses to read thousands of digits
        token = int(name[1:]) if len(name) < 20 else crystal.vocab_size
        if token < crystal.vocab_size:
            return token
        raise DataError(
            f"{name} is outside the vocabulary",
            advice=f"Ids are 0 to {crystal.vocab_size - 1}.",
        )
    if token is None:
        token = crystal.find(" " + name)
    if token is not None:
        return token
    texts = [text for text in crystal.texts if text is not None]
    close = difflib.get_close_matches(name, texts, n=5, cutoff=0.5)
    raise DataError(
        f"{name!r} is not a token of this vocabulary",
        advice=f"The closest are {', '.join(map(repr, close))}."
        if close
        else "Words that are no token of their own are spelled with several; name one of them.",
    )


def _mention_twins(crystal: Crystal, tokens: Sequence[int]) -> None:
    """Say where the same text with a space before it is a token too, and more frequent."""
    for token in tokens:
        text = crystal.texts[token]
        twin = None if text is None else crystal.find(" " + text)
        if twin is not None and crystal.counts[twin] > crystal.counts[token]:
            _tell(
                f"{called(PROGRAM)}: {' ' + str(text)!r}, with a space before it, is another token"
                f" (#{twin}), and more frequent"
            )


def _tell(text: str) -> None:
    print(message(text), file=sys.stderr)


# --- what it says -----------------------------------------------------------------------------


def describe(crystal: Crystal, token: int, neighbors: int) -> dict[str, Any]:
    """Return all there is to say of a token, in values that JSON can hold."""
    from crystalline.exact import clock_position, spiral_place

    number, root = int(crystal.numbers[token]), int(crystal.root[token])
    count = int(crystal.counts[token])
    made = [
        {
            "prime": int(crystal.affix_primes[index]),
            "affix": str(crystal.affixes[index]),
            "kind": crystal.affixes[index].kind,
        }
        for index in crystal.affixes_of(token)
    ]
    before = (crystal.counts > count) | ((crystal.counts == count) & (_ids(crystal) < token))
    x, y = spiral_place(number)
    ring, hour = clock_position(number)
    return {
        **_entry(crystal, token),
        "is_root": crystal.is_root(token),
        "root": _entry(crystal, root),
        "affixes": made,
        "factors": list(crystal.factors(token)),
        "signature": list(crystal.signature(token)),
        "derivations": _tree(crystal, root),
        "share": count / max(1, int(crystal.counts.sum())),
        "rank": 1 + int(before.sum()),
        "ulam": {"x": x, "y": y},
        "clock": {"ring": ring, "hour": hour},
        "group": crystal.group(token),
        "neighbors": _neighbors(crystal, token, neighbors),
    }


def affixes(crystal: Crystal, top: int) -> list[dict[str, Any]]:
    """Return the affixes, most frequent first, with the most frequent tokens that each makes."""
    found = []
    for index, affix in enumerate(crystal.affixes[: top or None]):
        tokens = _most_frequent(crystal, crystal.affix == index)
        found.append(
            {
                "affix": str(affix),
                "kind": affix.kind,
                "prime": int(crystal.affix_primes[index]),
                "tokens": len(tokens),
                "count": int(crystal.counts[tokens].sum()),
                "examples": [
                    {"text": crystal.texts[token], "parent": crystal.texts[crystal.parent[token]]}
                    for token in tokens[:3]
                ],
            }
        )
    return found


def roots(crystal: Crystal, top: int) -> list[dict[str, Any]]:
    """Return the roots that most tokens derive from, with the most frequent of these."""
    import numpy as np

    sizes = np.bincount(crystal.root, minlength=crystal.vocab_size) - 1
    order = np.lexsort((_ids(crystal), -crystal.counts, -sizes))
    order = order[sizes[order] > 0]
    found = []
    for token in order[: top or None].tolist():
        family = crystal.family(token)
        found.append(
            {
                **_entry(crystal, token),
                "derivations": len(family) - 1,
                "family_count": int(crystal.counts[family].sum()),
                "examples": [crystal.texts[other] for other in family[1:5]],
            }
        )
    return found


def _entry(crystal: Crystal, token: int) -> dict[str, Any]:
    return {
        "token": token,
        "text": crystal.texts[token],
        "number": int(crystal.numbers[token]),
        "count": int(crystal.counts[token]),
    }


def _tree(crystal: Crystal, token: int) -> dict[str, Any]:
    """Return a token with all that derives from it."""
    index = int(crystal.affix[token])
    return {
        **_entry(crystal, token),
        "affix": None if index < 0 else str(crystal.affixes[index]),
        "derived": [_tree(crystal, child) for child in crystal.derived(token)],
    }


def _neighbors(crystal: Crystal, token: int, count: int) -> list[dict[str, Any]]:
    """Return the `count` tokens that are most similar, as the crystalline loss has it."""
    import numpy as np

    from crystalline.data.crystal.neighbors import similarities
    from crystalline.exact import gcd_array, spiral_distances_squared

    number = crystal.numbers[token]
    similarity = similarities(crystal.numbers, number)
    common = gcd_array(crystal.numbers, number)
    distance = np.sqrt(spiral_distances_squared(crystal.numbers, number).astype(np.float64))
    order = np.lexsort((_ids(crystal), -similarity))
    return [
        {
            **_entry(crystal, other),
            "similarity": float(similarity[other]),
            "gcd": int(common[other]),
            "distance": float(distance[other]),
        }
        for other in order[order != token][:count].tolist()
    ]


def _most_frequent(crystal: Crystal, chosen: Any) -> Any:
    """Return the tokens that a mask (V,) has, most frequent first."""
    import numpy as np

    tokens = np.flatnonzero(chosen)
    return tokens[np.lexsort((tokens, -crystal.counts[tokens]))]


def _ids(crystal: Crystal) -> Any:
    import numpy as np

    return np.arange(crystal.vocab_size)
