"""From paths to a cached token file and its tokenizer: the one door to this package for a run.

The cache has two levels.  `corpora/KEY/` holds `tokens.bin` and `tokenizer.json`;
KEY is a hash of the text and of every setting that shapes the tokens.
`requests/KEY.json` remembers, for a list of paths and settings, the size and times
of every file and the entry that came of it, so that unchanged files are not read
again.  Both are made under a temporary name and renamed: any number of processes
may prepare the same text at once, and the first one's work is kept.

`corpora/KEY/crystal.json` joins them when `crystal_of` is first asked for it.
A CACHEDIR.TAG (https://bford.info/cachedir) tells backups, and our own search for text, what
the folder is.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tokenizers

from crystalline.atomic import (
    remove,
    sweep_leftovers,
    sync_directory,
    temporary_beside,
    write_bytes,
    write_json,
)
from crystalline.data.artifacts import (
    CACHE_SIGNATURE,
    CACHE_TAG,
    CORPORA,
    REQUESTS,
    TOKENIZER,
    TOKENS,
)
from crystalline.data.chat_template import ChatTemplate
from crystalline.data.corpus import Corpus, read_corpus
from crystalline.data.crystal import CRYSTAL
from crystalline.data.default import default_corpus
from crystalline.data.finding import Found, Source, find, shown
from crystalline.data.pieces import PART_CHARS
from crystalline.data.records import Render
from crystalline.data.split import HeldOut, hold_out
from crystalline.data.tokenfile import VERSION, Split, TokenFile, write_token_file
from crystalline.data.tokenizer import GivenTokenizer, Ids, Tokenizer
from crystalline.data.transcript import is_conversation, transcript
from crystalline.errors import DataError
from crystalline.log import get_logger
from crystalline.untrusted import BadContent, real_directory
from crystalline.untrusted.files import PRECISION, REQUEST
from crystalline.untrusted.files import TOKENIZER as TOKENIZER_FILE

if TYPE_CHECKING:
    from crystalline.data.crystal.tokens import Crystal

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, and bytes of text (or tokens) done and in all; 0 and 0 where
nobody can say how far the stage is."""

FORMAT = 3  # raise it when the same text and settings would give other tokens
TRAINING_BYTES = 64_000_000  # of text that a tokenizer is trained on; more is sampled evenly

_COUNTING, _MERGING = "Training the tokenizer", "Building the vocabulary"
_BATCH_PIECES = 32
_COUNT_TOKENS = 1 << 22  # counted at a time
_BEAT_S = 0.1  # between two calls of `progress`
_SETTLED_NS = 100_000_000  # a file changed later than this before reading may change unseen
_STALE_S = 24 * 3600  # an abandoned temporary folder
_TAG_COMMENT = b"""
# This folder is a cache of crystalline: tokens of text that was trained on.
# It may be deleted; what is in it is made again.  See https://bford.info/cachedir
"""

_log = get_logger("data")


@dataclass(frozen=True)
class PreparedData:
    """A corpus that is ready to train on."""

    token_path: Path
    tokenizer_path: Path
    kind: str
    vocab_size: int
    train_tokens: int
    val_tokens: int
    train_bytes: int  # UTF-8 bytes of text
    val_bytes: int
    documents: int
    description: str  # for people: the names of the text, and its size
    left_out: str  # for people: what lies beside the text and is none, or nothing
    cached: bool  # nothing had to be tokenized
    tokens_sha256: str  # equal when a run continues on the same tokens


def prepare(
    paths: Sequence[str | os.PathLike[str]] | None,
    *,
    kind: str,
    vocab_size: int,
    val_fraction: float,
    text_field: str | None = None,
    given: GivenTokenizer | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> PreparedData:
    """Read, split, tokenize and cache the text of `paths` (None: the embedded default).

    `text_field` names the field of JSON records that holds their text; by default `text`,
    else a conversation (see `records`).  The tokenizer is trained on the training split; a
    char tokenizer takes its characters from all of the text.  With `given` it is that one, and
    `kind` and `vocab_size` say nothing.  `progress` is called several
    times a second, always in the calling thread.

    Raises `DataError` for text that cannot be used and for a cache that cannot be
    written, `UsageError` for settings that do not fit the tokenizer.
    """
    cache = _Cache(default_cache_dir() if cache_dir is None else Path(cache_dir))
    settings: dict[str, Any] = {
        "format": FORMAT,
        "token_file": VERSION,
        "tokenizers": tokenizers.__version__,
        "kind": kind,
        "vocab_size": vocab_size if kind in ("bpe", "word") else None,
        "val_fraction": val_fraction,
    }
    if text_field is not None:
        settings["text_field"] = text_field
    if given is not None:
        settings |= {"kind": None, "vocab_size": None, "given": given.key}
        kind = given.tokenizer.kind
    if paths is None:
        found = find(default_corpus(), explicit=False)
        names = ["the Python standard library"]
        request_key = _key({**settings, "default": True})
    else:
        found = find(paths)
        names = [shown(path) for path in paths]
        request_key = _key(
            {**settings, "paths": [os.fspath(Path(path).absolute()) for path in paths]}
        )

    cache.sweep()
    sources = found.sources
    if found.passed_over:
        _log.info(
            "Passed over %s file%s that no suffix of text marks: %s.",
            f"{found.passed_over.total():,}",
            "" if found.passed_over.total() == 1 else "s",
            found.passed_over_words(),
        )

    entry = cache.recall(request_key, sources)
    if entry is not None:
        return _prepared(entry, kind, names, found, cached=True)

    began_ns = time.time_ns()
    ticker = _Ticker(progress)
    source_bytes = sum(source.size_bytes for source in sources)
    with _rendering(given) as render:
        corpus = read_corpus(
            sources,
            lambda done: ticker.tick("Reading text", min(done, source_bytes), source_bytes),
            text_field=text_field,
            render=render,
        )
        entry_key = _key({**settings, "corpus": corpus.sha256})
        entry = cache.open_entry(entry_key)
        cached = entry is not None
        if entry is None:
            entry = cache.add(
                entry_key,
                lambda folder: _build(
                    folder, entry_key, corpus, kind, vocab_size, val_fraction, ticker, given
                ),
            )
    cache.remember(request_key, sources, entry_key, began_ns)
    return _prepared(entry, kind, names, found, cached=cached)


@contextmanager
def _rendering(given: GivenTokenizer | None) -> Iterator[Render]:
    """Open what makes text of conversations: the model's chat template, where it has one."""
    if given is None or given.tokenizer.chat_template is None:
        yield transcript
        return
    with ChatTemplate(given.tokenizer) as template:
        yield lambda held: template.conversation(held) if is_conversation(held) else None


def crystal_of(prepared: PreparedData, progress: Progress | None = None) -> Crystal:
    """Return the numbers of a corpus's vocabulary; made and cached on first use.

    They follow from the tokenizer and the counts of the training split alone.  Any number of
    processes may ask at once.  Raises `DataError` when the tokens or the tokenizer are gone.
    """
    return crystal_in(prepared.token_path.parent, progress, verify=False)  # it has just been read


def crystal_in(folder: Path, progress: Progress | None = None, *, verify: bool = True) -> Crystal:
    """Return what `crystal_of` does, for the cached `tokens.bin` and `tokenizer.json` in a folder.

    A damaged `crystal.json`, or one of other tokens, is made again.  With `verify` the tokens are
    read whole first: their checksum, every id, and that they were made with this tokenizer.
    """
    from crystalline.data.crystal.tokens import Crystal, build_crystal

    tokens = TokenFile.open(folder / TOKENS, verify=verify)
    path = folder / CRYSTAL
    if path.is_file():
        try:
            crystal = Crystal.load(path)
            n_tokens = int(crystal.counts.sum())
            if (crystal.vocab_size, n_tokens) == (tokens.vocab_size, len(tokens.train)):
                return crystal
            raise DataError(f"{path} belongs to other tokens")
        except DataError as error:
            _log.warning("The numbers of a vocabulary are made again: %s", error)
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    if verify and _file_sha256(folder / TOKENIZER) != tokens.header.tokenizer_sha256:
        raise DataError(
            f"{folder / TOKENIZER} is not the tokenizer that {tokens.path.name} was made with",
            advice="Name a folder of the cache as it was made, or the text with --data.",
        )
    ticker = _Ticker(progress)
    counts = _count(tokens, ticker)
    ticker.tick("Finding affixes", 0, tokens.vocab_size)
    crystal = build_crystal(tokenizer, counts)
    ticker.tick("Finding affixes", tokens.vocab_size, tokens.vocab_size)
    try:
        crystal.save(path)
    except OSError as error:  # a cache filled by somebody else is still good to read
        _log.warning("The numbers of the vocabulary will be made again next time: %s", error)
    return crystal


def _count(tokens: TokenFile, ticker: _Ticker) -> npt.NDArray[np.int64]:
    """Return how often each token occurs in the training split, int64[V]."""
    counts = np.zeros(tokens.vocab_size, np.int64)
    n_tokens = len(tokens.train)
    for start in range(0, n_tokens, _COUNT_TOKENS):
        block = tokens.train[start : start + _COUNT_TOKENS]
        counts += np.bincount(block, minlength=counts.size)
        ticker.tick("Counting tokens", start + len(block), n_tokens)
    return counts


def cached_tokens(tokens_sha256: str, cache_dir: Path | None = None) -> TokenFile | None:
    """Return the cached token file of that checksum, read whole and checked; None without one."""
    try:
        corpora = (default_cache_dir() if cache_dir is None else cache_dir) / CORPORA
        entries = sorted(corpora.iterdir())
    except (DataError, OSError):
        return None
    for entry in entries:
        with suppress(DataError):  # another version's, or in the making
            if TokenFile.open(entry / TOKENS).sha256 == tokens_sha256:
                return TokenFile.open(entry / TOKENS, verify=True)
    return None


def default_cache_dir() -> Path:
    """Return `$CLLM_CACHE`, else `$XDG_CACHE_HOME/crystalline`, else `~/.cache/crystalline`.

    Raises `DataError` when there is no home folder either.
    """
    own = os.environ.get("CLLM_CACHE")
    if own:
        return Path(own)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "crystalline"
    try:
        return Path.home() / ".cache" / "crystalline"
    except RuntimeError:
        raise DataError(
            "there is no home folder to keep the cache in",
            advice="Set CLLM_CACHE to a folder that you may write to.",
        ) from None


def _prepared(
    tokens: TokenFile, kind: str, names: list[str], found: Found, *, cached: bool
) -> PreparedData:
    header = tokens.header
    if tokens.train_marks is not None:
        _log.info(
            "Of conversations the assistant's turns alone are learned: %s of %s tokens count.",
            f"{int(tokens.train_marks.sum()):,}",
            f"{header.train_tokens:,}",
        )
    shown_names = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    documents = "1 document" if header.documents == 1 else f"{header.documents:,} documents"
    size = header.train_bytes + header.val_bytes
    shown_size = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
    return PreparedData(
        token_path=tokens.path,
        tokenizer_path=tokens.path.with_name(TOKENIZER),
        kind=kind,
        vocab_size=header.vocab_size,
        train_tokens=header.train_tokens,
        val_tokens=header.val_tokens,
        train_bytes=header.train_bytes,
        val_bytes=header.val_bytes,
        documents=header.documents,
        description=f"{shown_names} ({documents}, {shown_size})",
        left_out=found.left_out_words(),
        cached=cached,
        tokens_sha256=header.payload_sha256,
    )


def _key(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


# --- making an entry --------------------------------------------------------------------------


def _build(
    folder: Path,
    entry_key: str,
    corpus: Corpus,
    kind: str,
    vocab_size: int,
    val_fraction: float,
    ticker: _Ticker,
    given: GivenTokenizer | None,
) -> None:
    """Write `tokenizer.json` and `tokens.bin` into `folder`."""
    held_out = hold_out(corpus, val_fraction)
    if given is None:
        tokenizer = _train_tokenizer(corpus, held_out, kind, vocab_size, ticker)
        tokenizer.save(folder / TOKENIZER)
        vocab_size = tokenizer.vocab_size
    else:
        tokenizer, vocab_size = given.tokenizer, given.vocab_size
        write_bytes(folder / TOKENIZER, given.content)
    total_bytes = corpus.total_bytes
    done_bytes = 0

    def encoded(part_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += part_bytes
        ticker.tick("Encoding", done_bytes, total_bytes)

    train, val = (
        _split(corpus, held_out, tokenizer, encoded, val=val, is_given=given is not None)
        for val in (False, True)
    )
    write_token_file(
        folder / TOKENS,
        train,
        val,
        vocab_size=vocab_size,
        documents=corpus.documents,
        tokenizer_sha256=_file_sha256(folder / TOKENIZER),
        entry=entry_key,
    )
    if train.marks is not None and not any(marks.any() for marks in train.marks()):
        raise DataError(
            "the training split has conversations, and no turn of the assistant's in them",
            advice='Only turns like {"role": "assistant", "content": "…"} are learned from.',
        )


def _train_tokenizer(
    corpus: Corpus, held_out: HeldOut, kind: str, vocab_size: int, ticker: _Ticker
) -> Tokenizer:
    """Train in a thread of its own, so that progress goes on while the library is busy.

    Words are counted as far as the text has been fed; how far the library is with what it makes
    of them, it does not say.
    """
    stop = threading.Event()
    all_fed = threading.Event()
    texts_failed: list[BaseException] = []
    outcome: list[Tokenizer] = []
    failed: list[BaseException] = []
    n_chars = held_out.chars(corpus, val=False) if kind != "char" else int(corpus.doc_chars.sum())
    done_chars = 0

    def texts() -> Iterator[str]:
        nonlocal done_chars
        stride = 1 if kind == "char" else -(-corpus.total_bytes // TRAINING_BYTES)
        source = corpus.pieces() if kind == "char" else held_out.texts(corpus, val=False)
        try:
            for index, (_, piece) in enumerate(source):
                if stop.is_set():
                    return
                if index % stride == 0:
                    yield piece
                done_chars += len(piece)
        except DataError as error:  # the library would wrap it
            texts_failed.append(error)
        finally:
            all_fed.set()

    def work() -> None:
        try:
            outcome.append(
                Tokenizer.train(
                    kind,
                    texts(),
                    vocab_size,
                    end_of_text=corpus.documents > 1,
                    long_words=corpus.long_words,
                )
            )
        except BaseException as error:  # noqa: BLE001  (the calling thread raises it)
            failed.append(error)

    thread = threading.Thread(target=work, name="tokenizer-training")
    thread.start()
    try:
        while thread.is_alive() and not all_fed.is_set():
            ticker.tick(_COUNTING, min(done_chars, n_chars), n_chars)
            all_fed.wait(_BEAT_S)
        ticker.tick(_COUNTING, n_chars, n_chars)
        thread.join(_BEAT_S)
        while thread.is_alive():
            ticker.tick(_MERGING, 0, 0)
            thread.join(_BEAT_S)
    finally:
        stop.set()
        thread.join()
    for error in texts_failed + failed:
        raise error
    return outcome[0]


def _split(
    corpus: Corpus,
    held_out: HeldOut,
    tokenizer: Tokenizer,
    encoded: Callable[[int], None],
    *,
    val: bool,
    is_given: bool,
) -> Split:
    """Return the tokens of one split, `<|endoftext|>` between its documents.

    The text comes in pieces for our own tokenizers; others cut it anew (`is_given`), and may want
    a token at the beginning of a document.  Where the corpus has conversations every token has a
    mark: 1 where it is of the model's turns, or of other text.
    """
    text_bytes = 0
    marks: list[npt.NDArray[np.uint8]] = []

    def batch_tokens(batch: list[_Piece], previous: _Piece | None) -> Ids:
        nonlocal text_bytes
        texts = [piece.text for piece in batch]
        parts: list[Ids] = []
        for piece, (ids, counts) in zip(batch, _encoded(tokenizer, batch), strict=True):
            if previous is None or previous.document != piece.document:
                before, beginning = _between(tokenizer, previous, piece, ids, is_given)
                parts.append(before)
                if corpus.has_turns:
                    ends = previous is not None and previous.ends_counted
                    marks.append(np.full(len(before), ends, np.uint8))
                    marks[-1][len(before) - beginning :] = 0
            parts.append(ids)
            if corpus.has_turns:
                marks.append(counts)
            previous = piece
        batch_bytes = sum(len(text.encode()) for text in texts)
        text_bytes += batch_bytes
        encoded(batch_bytes)
        return np.concatenate(parts)

    def tokens() -> Iterator[Ids]:
        batch: list[_Piece] = []
        previous: _Piece | None = None
        chars = 0
        for piece in _pieces(corpus, held_out, tokenizer, val=val, is_given=is_given):
            batch.append(piece)
            chars += len(piece.text)
            if len(batch) == _BATCH_PIECES or chars >= PART_CHARS:
                yield batch_tokens(batch, previous)
                previous, batch, chars = piece, [], 0
        if batch:
            yield batch_tokens(batch, previous)

    return Split(tokens(), lambda: text_bytes, (lambda: marks) if corpus.has_turns else None)


@dataclass(frozen=True)
class _Piece:
    """A part of a document that is encoded in one go."""

    document: int
    text: str
    spans: tuple[tuple[int, int], ...] | None  # of its characters that count; None: all
    ends_counted: bool  # whether the mark behind the document counts: somebody's turn ends


def _pieces(
    corpus: Corpus, held_out: HeldOut, tokenizer: Tokenizer, *, val: bool, is_given: bool
) -> Iterator[_Piece]:
    for number, numbered in groupby(held_out.texts(corpus, val), key=itemgetter(0)):
        parts: Iterator[str] = (part for _, part in numbered)
        spans = corpus.spans(number)
        if spans is None:
            for text in tokenizer.pieces(parts) if is_given else parts:
                yield _Piece(number, text, None, True)
            continue
        at = held_out.begins(corpus, number, val=val)
        whole = corpus.doc_chars[number]
        for text in tokenizer.pieces(parts):
            end = at + len(text)
            here = [(max(first, at) - at, min(last, end) - at) for first, last in spans]
            kept = tuple((first, last) for first, last in here if first < last)
            yield _Piece(number, text, kept, bool(spans) and spans[-1][1] == whole)
            at = end


def _encoded(
    tokenizer: Tokenizer, batch: list[_Piece]
) -> Iterator[tuple[Ids, npt.NDArray[np.uint8]]]:
    """Yield the ids of each piece, and which of them count."""
    if all(piece.spans is None for piece in batch):
        for ids in tokenizer.encode_batch([piece.text for piece in batch]):
            yield ids, np.ones(len(ids), np.uint8)
        return
    texts = [piece.text for piece in batch]
    for piece, (ids, places) in zip(batch, tokenizer.encode_batch_places(texts), strict=True):
        if piece.spans is None:
            yield ids, np.ones(len(ids), np.uint8)
            continue
        # Between the bounds of spans it is outside, inside, outside: odd places are inside.
        bounds = np.array(piece.spans, np.int64).reshape(-1)
        yield ids, (np.searchsorted(bounds, places, side="right") % 2).astype(np.uint8)


def _between(
    tokenizer: Tokenizer, previous: _Piece | None, piece: _Piece, ids: Ids, is_given: bool
) -> tuple[Ids, int]:
    """Return the tokens before a document that begins with `piece`, and how many begin it.

    `ids` are those of the piece.
    """
    found = []
    if previous is not None and tokenizer.eot_id is not None:
        found.append(tokenizer.eot_id)
    start = list(tokenizer.prompt_start) if is_given else []
    if piece.spans is not None and ids[: len(start)].tolist() == start:
        start = []  # a chat template has written it
    return np.array(found + start, np.int32), len(start)


class _Ticker:
    """Passes progress on, but not more often than anybody can see."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._stage = ""
        self._next_s = 0.0

    def tick(self, stage: str, done: int, total: int) -> None:
        if self._progress is None:
            return
        now_s = time.monotonic()
        if stage != self._stage or 0 < total <= done or now_s >= self._next_s:
            self._stage, self._next_s = stage, now_s + _BEAT_S / 2
            self._progress(stage, done, total)


# --- the cache --------------------------------------------------------------------------------


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(TOKENIZER_FILE.read_bytes(path)).hexdigest()


class _Cache:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.corpora = root / CORPORA
        self.requests = root / REQUESTS

    def recall(self, request_key: str, sources: list[Source]) -> TokenFile | None:
        """Return the entry that these very files gave before, if it is still whole."""
        try:
            record = REQUEST.read(self.requests / f"{request_key}.json")
        except (OSError, BadContent):  # never asked before, or damaged: ask again
            return None
        if record["sources"] != [list(source.identity) for source in sources]:
            return None
        return self.open_entry(record["entry"])

    def remember(
        self, request_key: str, sources: list[Source], entry_key: str, began_ns: int
    ) -> None:
        """Record that these files gave this entry, unless one has just been written to."""
        newest_ns = max(max(source.mtime_ns, source.ctime_ns) for source in sources)
        if newest_ns > began_ns - _SETTLED_NS:
            return
        record = {"entry": entry_key, "sources": [source.identity for source in sources]}
        try:
            self.requests.mkdir(parents=True, exist_ok=True)
            self._tag()
            write_json(self.requests / f"{request_key}.json", record)
        except OSError as error:  # a cache filled by somebody else is still good to read
            _log.warning("The text will be read again next time: %s", error)

    def open_entry(self, entry_key: str) -> TokenFile | None:
        """Open and verify an entry; a damaged one is removed and reported."""
        folder = self.corpora / entry_key
        if not os.path.lexists(folder):
            return None
        try:
            real_directory(folder)
            tokens = TokenFile.open(folder / TOKENS, verify=True)
            if tokens.header.entry != entry_key:
                raise DataError(f"{folder / TOKENS} belongs to another corpus")
            if _file_sha256(folder / TOKENIZER) != tokens.header.tokenizer_sha256:
                raise DataError(f"{folder / TOKENIZER} is damaged (its checksum is wrong)")
        except (DataError, OSError) as error:
            _log.warning("A cached corpus is made again: %s", error)
            with self._written():
                aside = temporary_beside(folder)
                try:
                    folder.rename(aside)
                except FileNotFoundError:  # another process has removed it
                    return None
                remove(aside)
            return None
        sweep_leftovers(folder, owned=False)
        return tokens

    def add(self, entry_key: str, build: Callable[[Path], None]) -> TokenFile:
        """Make an entry in a temporary folder and rename it; another process's is as good."""
        final = self.corpora / entry_key
        with self._written():
            self.corpora.mkdir(parents=True, exist_ok=True)
            self._tag()
            folder = temporary_beside(final)
            folder.mkdir()
            try:
                build(folder)
                sync_directory(folder)
                try:
                    folder.rename(final)
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                        raise
                sync_directory(self.corpora)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return TokenFile.open(final / TOKENS)

    def _tag(self) -> None:
        """Mark the folder as a cache; where it holds something else too, its two parts."""
        ours = {CORPORA, REQUESTS, CACHE_TAG, PRECISION.name}
        with suppress(OSError):  # a cache serves without
            alone = all(name in ours or name.startswith(".") for name in os.listdir(self.root))
            for folder in [self.root] if alone else [self.corpora, self.requests]:
                tag = folder / CACHE_TAG
                if folder.is_dir() and not tag.exists():
                    write_bytes(tag, CACHE_SIGNATURE + _TAG_COMMENT)

    def sweep(self) -> None:
        """Remove what killed processes left half-written."""
        for folder in (self.corpora, self.requests):
            sweep_leftovers(folder, owned=False)
        for folder in self.corpora.glob(".tmp-*"):  # of versions before the names had owners
            try:
                abandoned = time.time() - folder.stat().st_mtime > _STALE_S
            except OSError:  # its owner has just finished
                continue
            if abandoned:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Turn a failure to write the cache into a sentence that says where and what to do."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"the cache folder {self.root} cannot be written ({error.strerror or error})",
                advice="Set CLLM_CACHE to a folder with room that you may write to.",
            ) from None
