"""Text to token ids and back: `bpe`, `char`, `word` and `byte`, all saved as `tokenizer.json`.

Tokenizers of others are byte-level BPE (kind `bpe`, whatever its split) or SentencePiece's BPE
(kind `spm`: spaces are written ▁, and what is unknown as bytes).

Training, the file format and the splitting of words are those of the `tokenizers`
library, so that a saved tokenizer loads there and in transformers.  Decoding and the
character and byte tables are done here, and give what the library gives.

`<|endoftext|>` stands between documents, in the tokenizers of others what they have for it.
Where the tokenizer has it, the same characters in a text are that token too.

bpe and word tokenizers that meet a word of `LONGEST_WORD` characters or more (DNA, digits,
Chinese without punctuation) bound the length of words (see `pieces.py`): merging the pairs
of a megabyte without a space would take minutes otherwise.  The bound is a part of their
tokenizer.json, as a split in front of the byte level, so that the library and transformers
find the same ids; llama.cpp, which goes by its own table of patterns, may differ in such
words.  All others are as they always were, and so are their ids.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from crystalline.atomic import write_text
from crystalline.data.pieces import (
    BOUNDED_PATTERN,
    END_OF_TEXT,
    LONGEST_WORD,
    cut,
    cut_lines,
    has_long_word,
    word_pattern,
)
from crystalline.data.tokenizer_facts import NO_FACTS, TokenizerFacts, find_separator
from crystalline.data.tokenizer_file import (
    CHAR_PATTERN,
    SPACE,
    is_sentencepiece,
    prompt_start,
    read_tokenizer_file,
    to_text,
)
from crystalline.errors import DataError, UsageError
from crystalline.log import get_logger
from crystalline.untrusted import BadContent, shown
from crystalline.untrusted.files import TOKENIZER

KINDS = ("bpe", "char", "word", "byte")
UNKNOWN = "<unk>"
BYTES = 256

_WORD_PATTERN = word_pattern()
_BATCH_PIECES = 32  # about half a megabyte of text at a time

Ids = npt.NDArray[np.int32]

_log = get_logger("data")


class Tokenizer:
    """A vocabulary and the rules that cut text into its entries.

    >>> tokenizer = Tokenizer.train("char", ["hello world"], 0)
    >>> tokenizer.vocab_size, tokenizer.eot_id
    (8, None)
    >>> tokenizer.encode("low").tolist()
    [4, 5, 7]
    >>> tokenizer.decode([4, 5, 7])
    'low'
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        kind: str,
        facts: TokenizerFacts = NO_FACTS,
        prompt_start: tuple[int, ...] = (),
    ) -> None:
        self.kind = kind
        self.inner = inner
        vocabulary = inner.get_vocab(with_added_tokens=True)
        self._bytes = _bytes_of_tokens(vocabulary, kind)
        # What other programs' files say of it, as far as the vocabulary has it.
        self.chat_template = facts.chat_template
        self.special = {name: one for name, one in facts.special.items() if one in vocabulary}
        self.prompt_start = prompt_start  # tokens that the model expects before a prompt
        ends = [id_ for id_ in facts.end_ids if id_ < self.vocab_size]
        ends += [vocabulary[one] for name, one in self.special.items() if name == "eos_token"]
        self.eot_id: int | None = _separator(inner, kind, ends)
        self.end_ids = frozenset(ends if self.eot_id is None else [*ends, self.eot_id])
        self._strips_space = kind == "spm" and _strips_space(inner)
        self._char_ids = _char_table(vocabulary) if kind == "char" else None
        self._may_cut, self._longest_word = _cutting(inner, kind)

    @classmethod
    def train(
        cls,
        kind: str,
        texts: Iterable[str],
        vocab_size: int,
        *,
        end_of_text: bool | None = None,
        long_words: bool | None = None,
    ) -> Tokenizer:
        """Find a vocabulary of at most `vocab_size` tokens (char and byte find their own).

        The same texts give the same tokenizer, byte for byte.  `end_of_text` says
        whether a char tokenizer gets `<|endoftext|>`; by default when there are
        several texts.  The other kinds always have it.  `long_words` says whether the
        words of bpe and word tokenizers are bounded; by default when one of the texts
        has a long one.

        Raises `UsageError` for an unknown kind or a vocabulary too small for it.
        """
        if kind == "bpe":
            inner = _train_bpe(texts, vocab_size, long_words)
        elif kind == "char":
            inner = _train_char(texts, end_of_text)
        elif kind == "word":
            inner = _train_word(texts, vocab_size, long_words)
        elif kind == "byte":
            spelling = {_BYTE_TO_CHAR[byte]: byte for byte in range(BYTES)}
            inner = tokenizers.Tokenizer(models.BPE(vocab=spelling, merges=[]))
            inner.pre_tokenizer = _byte_level(bounded=False)
            inner.decoder = decoders.ByteLevel()
        else:
            raise UsageError(
                f"--tokenizer is {kind!r}", advice=f"It must be one of {', '.join(KINDS)}."
            )
        if kind in ("bpe", "byte"):
            inner.add_special_tokens([_special(END_OF_TEXT)])
        return cls(inner, kind)

    @classmethod
    def load(cls, path: str | os.PathLike[str], facts: TokenizerFacts = NO_FACTS) -> Tokenizer:
        """Read a `tokenizer.json`: one saved here, or any byte-level or SentencePiece's BPE.

        `facts` is what the files beside it say (`formats.tokenizer_config.read_facts`).

        Raises `DataError` when it is missing, damaged or of a kind not known here.
        """
        advice = "Name a tokenizer.json that was saved with a run."
        try:
            content, dropped = read_tokenizer_file(path)
        except OSError as error:
            denied = isinstance(error, PermissionError)
            raise DataError(
                f"the tokenizer {path} cannot be read ({error.strerror})",
                advice="Check its permissions." if denied else advice,
            ) from None
        except BadContent as error:
            raise DataError(
                f"the tokenizer {path} cannot be used: {error}", advice=advice
            ) from None
        if dropped:  # transformers saves what it was last asked for
            _log.warning(
                "The tokenizer %s asks for %s, which would change what a text means; "
                "switched off.", path, " and ".join(dropped),
            )  # fmt: skip
        return cls.from_content(content, path, facts, advice=advice)

    @classmethod
    def from_content(
        cls,
        content: dict[str, Any],
        path: str | os.PathLike[str],
        facts: TokenizerFacts = NO_FACTS,
        *,
        advice: str = "Name a tokenizer that was saved with a model.",
    ) -> Tokenizer:
        """Make a tokenizer of the checked content of a tokenizer.json (see `tokenizer_file`).

        `path` names it in errors.  Raises `DataError` as `load` does.
        """
        kind = _kind_of(content)
        if kind is None:
            raise DataError(
                f"the tokenizer {path} is neither byte-level BPE nor SentencePiece's BPE nor one"
                " saved by this program",
                advice=advice,
            )
        try:
            inner = tokenizers.Tokenizer.from_str(to_text(content))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  (nothing narrower; panics are no Exception)
            raise DataError(
                f"the tokenizer {path} is damaged ({shown(str(error))})", advice=advice
            ) from None
        return cls(inner, kind, facts, prompt_start(content))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` atomically.  Raises `OSError`."""
        write_text(path, self.to_json())

    def to_json(self) -> str:
        """Return the content of `tokenizer.json`."""
        return self.inner.to_str(pretty=True)

    @property
    def vocab_size(self) -> int:
        """V: ids are 0 to V - 1, special tokens included."""
        return len(self._bytes)

    def encode(self, text: str) -> Ids:
        """Return the ids of a text, int32[tokens].

        Raises `DataError` for a character that a char tokenizer does not know, and for
        half of a surrogate pair (which is what an invalid byte of an argument becomes).
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"the text is not valid Unicode (character {error.start} is {text[error.start]!r})",
                advice="Give text in UTF-8.",
            ) from None
        pieces = cut([text], self._longest_word) if self._may_cut else iter([text])
        parts = list(self._encode_pieces(pieces))
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def encode_prompt(self, text: str) -> Ids:
        """Return the ids of a prompt: `prompt_start`, where the model expects it, and the text's.

        Raises `DataError` as `encode` does.
        """
        return np.concatenate([np.array(self.prompt_start, np.int32), self.encode(text)])

    def encode_documents(self, documents: Sequence[str]) -> Ids:
        """Return the ids of several texts, `<|endoftext|>` between them where there is one.

        Raises `DataError` as `encode` does.
        """
        parts: list[Ids] = [np.zeros(0, np.int32)]
        for document in documents:
            if len(parts) > 1 and self.eot_id is not None:
                parts.append(np.array([self.eot_id], np.int32))
            parts.append(self.encode(document))
        return np.concatenate(parts)

    def pieces(self, blocks: Iterable[str]) -> Iterator[str]:
        """Cut a text, given in blocks, into parts that are encoded one by one.

        Where the tokenizer splits in a way of its own they are as long as memory allows, and end
        with a line.
        """
        return cut(blocks, self._longest_word) if self._may_cut else cut_lines(blocks)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text; on several cores where the kind allows it.

        The texts should be of moderate length (see `pieces.py`).
        """
        if self.kind == "char":
            return [self._encode_parts(text, self._encode_chars) for text in texts]
        if self.kind == "byte":
            return [self._encode_parts(text, _encode_bytes) for text in texts]
        encodings = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def encode_batch_places(self, texts: Sequence[str]) -> list[tuple[Ids, Ids]]:
        """Return the ids of each text as `encode_batch` does, and the character each begins with.

        One that begins with a space may be told to begin with what follows it.
        """
        if self.kind in ("char", "byte"):
            return [self._places(text) for text in texts]
        found = []
        for encoding in self.inner.encode_batch(list(texts), add_special_tokens=False):
            ids = np.array(encoding.ids, np.int32)
            places = np.array(encoding.offsets, np.int32).reshape(-1, 2)
            first, last = places[:, 0], places[:, 1]
            # Of white space alone the library may trim all, and say that it begins behind it.
            found.append((ids, np.where(first == last, last - 1, first)))
        return found

    def _places(self, text: str) -> tuple[Ids, Ids]:
        """Return what `encode_batch_places` does, where tokens are bytes or characters."""
        ids = self.encode_batch([text])[0]
        lengths: list[int] = []
        parts = [text] if self.eot_id is None else text.split(END_OF_TEXT)
        for number, part in enumerate(parts):
            lengths += [len(END_OF_TEXT)] * bool(number)
            if self.kind == "char":
                lengths += [1] * len(part)
            else:  # a character ends with its last byte
                for char in part:
                    lengths += [*[0] * (len(char.encode()) - 1), 1]
        ends = np.cumsum(np.array(lengths, np.int32), dtype=np.int32)
        return ids, np.concatenate([np.zeros(min(1, len(ids)), np.int32), ends[:-1]])

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD.

        Of SentencePiece's tokens the space that was put before the text is taken away again.

        Raises `DataError` for an id outside the vocabulary.
        """
        text = b"".join(self.token_bytes(id_) for id_ in ids).decode("utf-8", "replace")
        return text.removeprefix(" ") if self._strips_space else text

    def token_bytes(self, id_: int) -> bytes:
        """Return the UTF-8 bytes that a token stands for; they may be part of a character.

        Raises `DataError` for an id outside the vocabulary.
        """
        if not 0 <= id_ < len(self._bytes):
            raise DataError(
                f"token {id_} is outside the vocabulary of {len(self._bytes)}",
                advice="Use the tokenizer that belongs to the model.",
            )
        return self._bytes[id_]

    def stream_decoder(self) -> StreamDecoder:
        """Return a decoder that takes one token at a time."""
        return StreamDecoder(self)

    def _encode_pieces(self, pieces: Iterator[str]) -> Iterator[Ids]:
        batch: list[str] = []
        for piece in pieces:
            batch.append(piece)
            if len(batch) == _BATCH_PIECES:
                yield from self.encode_batch(batch)
                batch = []
        if batch:
            yield from self.encode_batch(batch)

    def _encode_parts(self, text: str, encode: Any) -> Ids:
        """Encode what stands between the `<|endoftext|>` of a text, and these."""
        if self.eot_id is None or END_OF_TEXT not in text:
            return cast(Ids, encode(text))
        mark = np.array([self.eot_id], np.int32)
        first, *others = text.split(END_OF_TEXT)
        parts = [encode(first)]
        for other in others:
            parts += [mark, encode(other)]
        return np.concatenate(parts)

    def _encode_chars(self, text: str) -> Ids:
        assert self._char_ids is not None
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        ids: Ids = self._char_ids[np.minimum(points, len(self._char_ids) - 1)]
        if ids.size and ids.min() < 0:
            point = int(points[ids < 0][0])
            raise DataError(
                f"the character {chr(point)!r} (U+{point:04X}) is not among the "
                f"{self.vocab_size} that the char tokenizer knows",
                advice="Leave it out, or train with --tokenizer bpe or byte.",
            )
        return ids


@dataclass(frozen=True, eq=False)
class GivenTokenizer:
    """The tokenizer of a model that training begins from, and the file that it came in."""

    tokenizer: Tokenizer
    content: bytes  # of tokenizer.json
    vocab_size: int  # of the model: the tokenizer's, or more where it is padded

    @classmethod
    def load(cls, path: Path, facts: TokenizerFacts, vocab_size: int) -> GivenTokenizer:
        """Read one from a tokenizer.json.  Raises `DataError`."""
        return cls(Tokenizer.load(path, facts), TOKENIZER.read_bytes(path), vocab_size)

    @property
    def key(self) -> dict[str, Any]:
        """What the tokens of a text depend on, for a cache of them."""
        return {
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "separator": self.tokenizer.eot_id,
            "start": list(self.tokenizer.prompt_start),
            "template": self.tokenizer.chat_template,
            "vocab_size": self.vocab_size,
        }


class StreamDecoder:
    """Turns tokens into text one by one, holding back characters until they are complete.

    >>> tokenizer = Tokenizer.train("byte", [], 0)
    >>> stream = tokenizer.stream_decoder()
    >>> [stream.push(id_) for id_ in "aß".encode()], stream.flush()
    (['a', '', 'ß'], '')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id_: int) -> str:
        """Return the characters that this token completes.

        Raises `DataError` for an id outside the vocabulary.
        """
        return self._decoder.decode(self._tokenizer.token_bytes(id_))

    def flush(self) -> str:
        """Return what was held back, as U+FFFD, and start anew."""
        text = self._decoder.decode(b"", True)
        self._decoder.reset()
        return text


# --- training ---------------------------------------------------------------------------------


def _special(token: str) -> AddedToken:
    return AddedToken(token, special=True, normalized=False)


def _byte_level(*, bounded: bool) -> pre_tokenizers.PreTokenizer:
    """Return the split of byte-level BPE: GPT-2's own, or with a bound on the length of words."""
    if not bounded:
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(BOUNDED_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _words(*, bounded: bool) -> pre_tokenizers.PreTokenizer:
    pattern = BOUNDED_PATTERN if bounded else _WORD_PATTERN
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _train(
    inner: tokenizers.Tokenizer,
    texts: Iterable[str],
    trainer: trainers.Trainer,
    split: Callable[..., pre_tokenizers.PreTokenizer],
    long_words: bool | None,
) -> None:
    """Train with `split(bounded=…)`; where nobody knows, words are bounded until none was long."""
    met = False

    def watched() -> Iterator[str]:
        nonlocal met
        for text in texts:
            met = met or has_long_word(text)
            yield text

    inner.pre_tokenizer = split(bounded=long_words is not False)
    inner.train_from_iterator(watched() if long_words is None else texts, trainer)
    if long_words is None:
        inner.pre_tokenizer = split(bounded=met)


def _train_bpe(
    texts: Iterable[str], vocab_size: int, long_words: bool | None
) -> tokenizers.Tokenizer:
    least = BYTES + 1
    if vocab_size < least:
        raise UsageError(
            f"--vocab-size {vocab_size} is too small for bpe",
            advice=f"It needs {BYTES} bytes and {END_OF_TEXT}: use {least} or more, "
            "or --tokenizer char.",
        )
    inner = tokenizers.Tokenizer(models.BPE())
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # the special token comes last
        min_frequency=2,
        initial_alphabet=list(_BYTE_TO_CHAR),
        show_progress=False,
    )
    _train(inner, texts, trainer, _byte_level, long_words)
    return inner


def _train_word(
    texts: Iterable[str], vocab_size: int, long_words: bool | None
) -> tokenizers.Tokenizer:
    if vocab_size < 3:
        raise UsageError(
            f"--vocab-size {vocab_size} is too small for word",
            advice=f"Use 3 or more: {UNKNOWN}, {END_OF_TEXT} and a word.",
        )
    inner = tokenizers.Tokenizer(models.WordLevel(vocab={}, unk_token=UNKNOWN))
    inner.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size,
        special_tokens=[_special(UNKNOWN), _special(END_OF_TEXT)],
        show_progress=False,
    )
    _train(inner, texts, trainer, _words, long_words)
    return inner


def _train_char(texts: Iterable[str], end_of_text: bool | None) -> tokenizers.Tokenizer:
    chars: set[str] = set()
    count = 0
    for text in texts:
        chars.update(text)
        count += 1
    vocabulary = {char: id_ for id_, char in enumerate(sorted(chars))}
    inner = tokenizers.Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(CHAR_PATTERN), "isolated")
    inner.decoder = decoders.Fuse()
    if count > 1 if end_of_text is None else end_of_text:
        inner.add_special_tokens([_special(END_OF_TEXT)])
    return inner


# --- tables -----------------------------------------------------------------------------------


def _byte_to_char() -> list[str]:
    """GPT-2's spelling of bytes: printable Latin-1 as itself, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(BYTES)]


_BYTE_TO_CHAR = _byte_to_char()
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")  # of SentencePiece
_CHAR_TO_BYTE = {char: byte for byte, char in enumerate(_BYTE_TO_CHAR)}


def _bytes_of_tokens(vocabulary: dict[str, int], kind: str) -> list[bytes]:
    """Return the bytes of each id, from the way in which a kind spells them."""
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, id_ in vocabulary.items():
        if kind in ("bpe", "byte") and all(char in _CHAR_TO_BYTE for char in token):
            table[id_] = bytes(_CHAR_TO_BYTE[char] for char in token)
        elif kind == "spm" and (match := _BYTE_TOKEN.fullmatch(token)):
            table[id_] = bytes.fromhex(match[1])
        elif kind == "spm":
            table[id_] = token.replace(SPACE, " ").encode()
        else:
            table[id_] = token.encode()
    return table


def _separator(inner: tokenizers.Tokenizer, kind: str, ends: Sequence[int]) -> int | None:
    """Return the token between documents: ours, else what a model's files or its name tells."""
    own: int | None = inner.token_to_id(END_OF_TEXT)
    if own is not None or kind not in ("bpe", "spm"):
        return own
    if ends:
        return ends[0]
    added = inner.get_added_tokens_decoder().values()
    found = find_separator(token.content for token in added if token.special)
    return None if found is None else cast(int, inner.token_to_id(found))


def _strips_space(inner: tokenizers.Tokenizer) -> bool:
    state = inner.decoder.__getstate__().decode()
    return '"Strip"' in state or ('"Metaspace"' in state and '"never"' not in state)


def _char_table(vocabulary: dict[str, int]) -> Ids:
    """Return the id of every code point, -1 for unknown ones; the last entry is always -1."""
    points = {ord(token): id_ for token, id_ in vocabulary.items() if len(token) == 1}
    table = np.full(max(points, default=0) + 2, -1, np.int32)
    for point, id_ in points.items():
        table[point] = id_
    return table


def _encode_bytes(text: str) -> Ids:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)


def _kind_of(content: Any) -> str | None:
    """Tell the kind of a `tokenizer.json` from its parts."""
    if not isinstance(content, dict):
        return None
    model, decoder, pre = (content.get(part) for part in ("model", "decoder", "pre_tokenizer"))
    if not isinstance(model, dict) or not isinstance(decoder, dict):
        return None
    if model.get("type") == "BPE" and is_sentencepiece(decoder):
        return "spm"
    if not isinstance(pre, dict):
        return None
    if model.get("type") == "BPE" and decoder.get("type") == "ByteLevel":
        spelling = {char: byte for byte, char in enumerate(_BYTE_TO_CHAR)}
        return "byte" if model.get("vocab") == spelling and not model.get("merges") else "bpe"
    if model.get("type") == "WordLevel" and decoder.get("type") == "Fuse":
        pattern = pre.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        kinds = {CHAR_PATTERN: "char", _WORD_PATTERN: "word", BOUNDED_PATTERN: "word"}
        return kinds.get(str(regex))
    return None


def _cutting(inner: tokenizers.Tokenizer, kind: str) -> tuple[bool, int | None]:
    """Return whether pieces may be encoded one by one, and the bound on words, if there is one.

    Other programs' tokenizers split in ways of their own: their text is encoded as a whole.
    """
    if kind in ("char", "byte"):
        return True, LONGEST_WORD
    if inner.normalizer is not None or inner.pre_tokenizer is None:
        return False, None
    state = inner.pre_tokenizer.__getstate__()
    for bound in (None, LONGEST_WORD):
        split = _words if kind == "word" else _byte_level
        if state == split(bounded=bound is not None).__getstate__():
            return True, bound
    return False, None
