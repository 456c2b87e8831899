"""Every kind of file in every hostile variant: one sentence, in time, nothing outside touched.

The variants come from the table of kinds and from `hostile`; each is opened as the commands open
it.  By default a part of the flips and of the nested fields is drawn, so that every row still
meets every kind of harm; the sweep that -m exhaustive runs takes all.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.cli import batch, control, infer, vocab
from crystalline.cli import train as cli
from crystalline.data.corpus import read_documents
from crystalline.data.crystal.neighbors import load_or_build
from crystalline.data.finding import find_sources
from crystalline.data.prepare import crystal_of, prepare
from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError
from crystalline.exact import PrimeCache
from crystalline.formats.checkpoint import load_checkpoint, resolve
from crystalline.formats.gguf import read_gguf
from crystalline.formats.rundir import newest_run
from crystalline.infer.batch import Results
from crystalline.infer.chat import Transcript, load, save
from crystalline.infer.loading import open_model
from crystalline.infer.suite import read_questions
from crystalline.runs.layers import toml_layer
from crystalline.runs.length import resumed_length
from crystalline.runs.resume import open_earlier
from crystalline.train import precision
from crystalline.train.config import TrainConfig
from crystalline.train.metrics import MetricsLog, read_metrics
from crystalline.untrusted import files
from crystalline.untrusted.files import KINDS, FileKind
from tests.untrusted.hostile import (
    damages,
    forgeries,
    listing,
    remove,
    replacements,
    texts,
)
from tests.untrusted.world import (
    Origin,
    World,
    outcome,
    signed,
)

MOST_MEMORY_BYTES = 500e6
FEW_FLIPS = 12
FEW_VALUES = 3  # for a field that the table of kinds does not name


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("CLLM_")]:
            patch.delenv(name)
        root = tmp_path_factory.mktemp("origin")
        patch.setenv("CLLM_CACHE", str(root / "world" / "cache"))
        patch.chdir(root)
        yield Origin(root)


@pytest.fixture
def world(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    """The world, whole; afterwards the folder outside must be as it was."""
    monkeypatch.chdir(origin.root)
    monkeypatch.setenv("CLLM_CACHE", str(origin.cache))
    monkeypatch.setattr("crystalline.data.prepare.default_corpus", lambda: [origin.text])
    origin.restore("runs", "cache", "model", "other.txt", "primes", "talks", "tuned")
    before_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield origin
    grown_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_bytes
    assert grown_bytes < MOST_MEMORY_BYTES
    assert listing(origin.outside) == origin.untouched


# --- opening, as the commands do ------------------------------------------------------------------


def resume(world: World) -> None:
    """What --resume does before it prepares the text, and what Node Zero takes from the file."""
    with open_earlier(str(world.run)) as earlier:
        path, info, stored = world.run, earlier.info, earlier.stored
        named = {key: value for key, value in stored.items() if key in TrainConfig().to_dict()}
        config = TrainConfig(**named | dict.fromkeys(("plan", "max_steps", "epochs", "minutes")))
        resumed_length(config, stored, [], info, 1000, lambda _: 1.0)
        load_checkpoint(info.path, verify=False)
        earlier.run.keep_tokenizer(info.tokenizer_path)
        with MetricsLog(path, info.step):
            read_metrics(path / "metrics.jsonl")


def generate(world: World) -> None:
    open_model(world.run)


def generate_tuned(world: World) -> None:
    open_model(world.tuned)


def resume_tuned(world: World) -> None:
    with open_earlier(str(world.tuned)) as earlier:
        load_checkpoint(earlier.info.path, verify=False)


def open_foreign(world: World) -> None:
    open_model(world.model)


def choose(world: World) -> None:
    newest_run(world.run.parent)
    for name in ("latest", "best", "4"):
        resolve(world.run, name)
    resolve(world.run / "latest")


def prepare_text(world: World) -> None:
    prepared = prepare([world.text], kind="word", vocab_size=60, val_fraction=0.1)
    load_or_build(prepared.token_path.parent, crystal_of(prepared), 3)


def read_text(world: World) -> None:
    read_documents(world.other_text)
    prepare([world.other_text], kind="char", vocab_size=0, val_fraction=0.1)


def read_settings(world: World) -> None:
    toml_layer(cli.TrainSettings, world.run / "config.toml", exclude=cli.FLAGS_ONLY)


def look_up(place: Path) -> None:
    vocab.find_crystal(vocab.VocabSettings("roots", from_=str(place), quiet=True))


def look_up_run(world: World) -> None:
    look_up(world.run)


def look_up_checkpoint(world: World) -> None:
    """Without its numbers, which are then counted from the text."""
    remove(world.checkpoint / "crystal.json")
    look_up(world.checkpoint)


def look_up_file(world: World) -> None:
    look_up(world.run / "crystal.json")


def look_up_tokens(world: World) -> None:
    """A folder of the cache that was given by name, its numbers not made yet."""
    entry = world.entry
    remove(entry / "crystal.json")
    look_up(entry)


def open_primes(world: World) -> None:
    try:
        cache = PrimeCache.open(world.primes)
    except (OSError, ValueError):  # what it raises for any that is none
        return
    assert len(cache) == 168  # the primes below 1,000
    cache.close()


def open_gguf(world: World) -> None:
    model = read_gguf(world.gguf)
    vocabulary = model.vocabulary()
    for name, tensor in model.tensors():
        assert np.isfinite(tensor).all(), name
    path = world.root / "tokenizer.json"
    path.write_text(json.dumps(vocabulary.document), "utf-8")
    try:
        Tokenizer.load(path).encode("some text <|endoftext|>")
    finally:
        path.unlink()


def recall_precisions(world: World) -> None:
    known = precision._read(world.cache)
    precision._write(world.cache, known | {"one more": {"float32": 1.0}})


def find_cache(world: World) -> None:
    """As a folder of text, which it is not."""
    find_sources([world.cache])


def read_prompts(world: World) -> None:
    settings = infer.InferSettings("m", prompts=str(world.talks / "prompts.jsonl"), seed=1)
    batch.read(settings, settings.generation(), "prompts.jsonl")


def continue_results(world: World) -> None:
    Results(world.talks / "results.jsonl").close()


def load_talk(world: World) -> None:
    load(world.talks / "talk.json")


def save_talk(world: World) -> None:
    save(Transcript("new"), world.talks / "talk.json")


def ask_for_status(world: World) -> None:
    """Of a run in which nobody trains."""
    with pytest.raises(CheckpointError, match="nobody trains"):
        control._call(control.Settings(str(world.run)))


def draw_tree(world: World) -> None:
    """Of what was last known of it."""
    control._last_known(control.Settings(str(world.run), "tree"))


def read_suite(world: World) -> None:
    read_questions(str(world.talks / "suite.jsonl"))


Act = Callable[[World], None]
Place = Callable[[World], Path]

Row = tuple[FileKind, str, Place, tuple[Act, ...]]

PLACES: list[Row] = [
    (files.GGUF, "file", lambda w: w.gguf, (open_gguf,)),
    (files.PROMPTS, "talks", lambda w: w.talks / "prompts.jsonl", (read_prompts,)),
    (files.RESULTS, "talks", lambda w: w.talks / "results.jsonl", (continue_results,)),
    (files.CONVERSATION, "talks", lambda w: w.talks / "talk.json", (load_talk, save_talk)),
    (files.SUITE, "talks", lambda w: w.talks / "suite.jsonl", (read_suite,)),
    (files.PRIMES, "file", lambda w: w.primes, (open_primes,)),
    (files.PRECISION, "cache", lambda w: w.cache / "precision.json", (recall_precisions,)),
    (files.CACHE_TAG, "cache", lambda w: w.cache / "CACHEDIR.TAG", (prepare_text, find_cache)),
    (
        files.TOKENIZER_CONFIG,
        "run",
        lambda w: w.checkpoint / "tokenizer_config.json",
        (resume, generate),
    ),
    (files.TEXT, "text", lambda w: w.other_text, (read_text,)),
    (
        files.RUN_CONFIG,
        "run",
        lambda w: w.run / "config.toml",
        (read_settings, resume, look_up_checkpoint),
    ),
    (files.RUN_LOCK, "run", lambda w: w.run / "run.lock", (resume, choose)),
    (files.STATUS, "run", lambda w: w.run / "status.json", (resume, ask_for_status, draw_tree)),
    (files.METRICS, "run", lambda w: w.run / "metrics.jsonl", (resume,)),
    (files.POINTER, "latest", lambda w: w.run / "latest", (choose, resume, generate, look_up_run)),
    (files.POINTER, "best", lambda w: w.run / "best", (generate, choose, resume)),
    (files.MANIFEST, "run", lambda w: w.checkpoint / "manifest.json", (resume, generate, choose)),
    (
        files.STATE,
        "run",
        lambda w: w.checkpoint / "state.json",
        (resume, generate, look_up_checkpoint),
    ),
    (files.MODEL_CONFIG, "run", lambda w: w.checkpoint / "config.json", (resume, generate, choose)),
    (
        files.TOKENIZER,
        "checkpoint",
        lambda w: w.checkpoint / "tokenizer.json",
        (resume, generate, look_up_checkpoint),
    ),
    (
        files.TOKENIZER,
        "cache",
        lambda w: w.entry / "tokenizer.json",
        (look_up_tokens, prepare_text),
    ),
    (
        files.TOKENIZER_CONFIG,
        "model",
        lambda w: w.model / "tokenizer_config.json",
        (open_foreign,),
    ),
    (
        files.GENERATION_CONFIG,
        "model",
        lambda w: w.model / "generation_config.json",
        (open_foreign,),
    ),
    (files.CHAT_TEMPLATE, "model", lambda w: w.model / "chat_template.jinja", (open_foreign,)),
    (
        files.WEIGHTS_INDEX,
        "model",
        lambda w: w.model / "model.safetensors.index.json",
        (open_foreign,),
    ),
    (
        files.ADAPTER_CONFIG,
        "tuned",
        lambda w: w.tuned_checkpoint / "adapter_config.json",
        (generate_tuned, resume_tuned),
    ),
    (
        files.WEIGHTS,
        "adapters",
        lambda w: w.tuned_checkpoint / "adapter_model.safetensors",
        (generate_tuned, resume_tuned),
    ),
    (
        files.STATE,
        "tuned",
        lambda w: w.tuned_checkpoint / "state.json",
        (resume_tuned, generate_tuned),
    ),
    (
        files.MANIFEST,
        "tuned",
        lambda w: w.tuned / "base" / "manifest.json",
        (generate_tuned, resume_tuned),
    ),
    (
        files.WEIGHTS,
        "base",
        lambda w: w.tuned / "base" / "model.safetensors",
        (generate_tuned, resume_tuned),
    ),
    (
        files.MODEL_CONFIG,
        "base",
        lambda w: w.tuned / "base" / "config.json",
        (generate_tuned, resume_tuned),
    ),
    (files.WEIGHTS, "shard", lambda w: next(w.model.glob("model-*")), (open_foreign,)),
    (files.WEIGHTS, "model", lambda w: w.checkpoint / "model.safetensors", (generate, resume)),
    (files.WEIGHTS, "moments", lambda w: w.checkpoint / "optimizer.safetensors", (resume,)),
    (
        files.CRYSTAL,
        "checkpoint",
        lambda w: w.checkpoint / "crystal.json",
        (generate, resume, look_up_run),
    ),
    (files.CRYSTAL, "run", lambda w: w.run / "crystal.json", (look_up_file, resume)),
    (files.CRYSTAL, "cache", lambda w: w.entry / "crystal.json", (prepare_text,)),
    (files.TOKENS, "cache", lambda w: w.entry / "tokens.bin", (look_up_tokens, prepare_text)),
    (files.REQUEST, "cache", lambda w: next(w.cache.glob("requests/*.json")), (prepare_text,)),
    (files.NEIGHBORS, "cache", lambda w: next(w.entry.glob("neighbors-*")), (prepare_text,)),
]
IDS = [f"{kind.name.split(',')[0]}-{where}".replace("*.", "") for kind, where, _, _ in PLACES]
each_place = pytest.mark.parametrize("row", PLACES, ids=IDS)


def test_every_row_of_the_table_is_tried() -> None:
    apart = {files.PROMPT.name, files.SHARED_MEMORY.name}  # in the tests of e2e and of ipc
    assert {kind.name for kind, *_ in PLACES} | apart == {kind.name for kind in KINDS}


def test_what_is_harmed_is_sound_before(world: Origin) -> None:
    """Or every harm would be refused for another reason."""
    for act in (resume, generate, open_foreign, generate_tuned, resume_tuned):
        assert not outcome(act.__name__, lambda act=act: act(world))


def attempt(origin: Origin, acts: tuple[Act, ...], label: str) -> list[str]:
    """Open what is there, in every way; put everything back, and look at the folder outside."""
    words = [outcome(f"{label}, {act.__name__}", lambda act=act: act(origin)) for act in acts]
    assert listing(origin.outside) == origin.untouched, label
    return words


def is_in_checkpoint(path: Path) -> bool:
    is_inside = path.parent.name.startswith("step-") or path.parent.name == "base"
    return is_inside and path.name != "manifest.json"


# --- something else in its place ------------------------------------------------------------------


@each_place
def test_something_else_in_its_place(world: Origin, row: Row) -> None:
    kind, _, place, acts = row
    path = place(world)
    part = path.relative_to(world.root).parts[0]
    for label, put in replacements(kind, path, world.outside):
        put()
        attempt(world, acts, f"{label} as {path.name}")
        world.restore(part)


@each_place
def test_damage(world: Origin, row: Row) -> None:
    sweep(world, row, flips=FEW_FLIPS)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@each_place
def test_all_damage(world: Origin, row: Row) -> None:
    sweep(world, row, flips=300, every_cut=True)


def sweep(world: Origin, row: Row, *, flips: int, every_cut: bool = False) -> None:
    _, _, place, acts = row
    path = place(world)
    part = path.relative_to(world.root).parts[0]
    linked = path.is_symlink()  # a pointer: as copies have it, a file that holds the name
    content = f"{path.readlink()}\n".encode() if linked else path.read_bytes()
    for number, (label, data) in enumerate(damages(content, flips=flips)):
        if not every_cut and label.startswith("cut") and number % 5:
            continue
        path.parent.mkdir(exist_ok=True)
        if linked:
            path.unlink()
        path.write_bytes(data)
        if is_in_checkpoint(path):
            signed(path.parent)
        attempt(world, acts, f"{path.name}: {label}")
        world.restore(part)
        if not path.exists():
            path = place(world)


# --- other values ---------------------------------------------------------------------------------


def write_document(path: Path, document: Any) -> None:
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    if is_in_checkpoint(path):
        signed(path.parent)


DOCUMENTS = [row for row in PLACES if row[0].parse is not None and row[0] not in
             (files.RUN_CONFIG, files.METRICS, files.TOKENS)]  # fmt: skip

BELIEVED = (
    files.MANIFEST,
    files.STATE,
    files.MODEL_CONFIG,
    files.WEIGHTS_INDEX,
)  # and not made again


def document_cases(
    kind: FileKind, content: bytes, *, all_of_them: bool
) -> Iterator[tuple[str, Any]]:
    """Yield what to write; of fields that no row names only some values, unless all are wanted."""
    document = json.loads(content)
    draw = random.Random(3)
    yield from texts(document)
    for field, cases in itertools.groupby(
        forgeries(kind.record, document), lambda case: case[0].partition(":")[0]
    ):
        found = list(cases)
        # Of keys of other architectures, too.
        known = kind.record is not None and field in kind.record.fields and field in document
        if not known and not all_of_them:
            found = draw.sample(found, min(FEW_VALUES, len(found)))
        yield from found


@pytest.mark.parametrize(
    "row",
    DOCUMENTS,
    ids=[f"{kind.name}-{where}" for kind, where, _, _ in DOCUMENTS],
)
def test_values(world: Origin, row: Row) -> None:
    forge(world, row, all_of_them=False)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "row",
    DOCUMENTS,
    ids=[f"{kind.name}-{where}" for kind, where, _, _ in DOCUMENTS],
)
def test_all_values(world: Origin, row: Row) -> None:
    forge(world, row, all_of_them=True)


def forge(world: Origin, row: Row, *, all_of_them: bool) -> None:
    kind, _, place, acts = row
    path = place(world)
    part = path.relative_to(world.root).parts[0]
    assert not any(attempt(world, acts, "unharmed"))
    for label, document in document_cases(kind, path.read_bytes(), all_of_them=all_of_them):
        write_document(path, document)
        words = attempt(world, acts, f"{path.name}: {label}")
        if kind in BELIEVED and kind.record and not kind.record.accepts(document):
            assert any(words), f"{path.name}: {label}: believed"
        world.restore(part)
