"""Models written for others: what comes back, what is refused, what a type costs."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.data.crystal.tokens import build_crystal
from crystalline.data.prepare import prepare
from crystalline.data.tokenizer import Tokenizer
from crystalline.data.tokenizer_facts import TokenizerFacts
from crystalline.errors import CheckpointError, CrystallineError, DataError, UsageError
from crystalline.formats.config_json import canonical
from crystalline.formats.folder import save_model_folder
from crystalline.formats.gguf import read_gguf
from crystalline.formats.sources import open_source
from crystalline.infer.loading import open_model
from crystalline.infer.perplexity import score_text
from crystalline.model.params import parameter_table
from crystalline.runs.export import Cost, Exported, ExportSettings, export_model
from crystalline.runs.model import load
from tests.runs.exports import TEXT, make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 5 (best), 10 and 15 (latest), all different."""
    return make_run(tmp_path / "my run", steps=(5, 10, 15))


def export(place: Path, *, measure: Sequence[str] | None = None, **settings: Any) -> Exported:
    if "out" in settings:
        settings["out"] = Path(settings["out"])
    return export_model(place, ExportSettings(**settings), measure=measure)


# --- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("gpt2", {}),
        ("llama", {"num_kv_heads": 1}),
        ("llama", {"tie_embeddings": False}),
        ("qwen3", {"num_kv_heads": 1}),
    ],
)
def test_float32_comes_back_bit_for_bit(
    tmp_path: Path, architecture: str, shape: dict[str, Any]
) -> None:
    run = make_run(tmp_path / "run", architecture, **shape)
    source = open_source(run)
    flat = source.flat()
    gguf = export(run, out="m.gguf")
    folder = export(gguf.path, out="folder")  # from any form to any other
    again = export(folder.path, to="gguf", out="again")
    assert (gguf.form, folder.form, again.form) == ("gguf", "hf", "gguf")
    for made in (gguf, folder, again):
        found = open_source(made.path)
        assert canonical(found.config) == canonical(source.config)
        assert found.flat().tobytes() == flat.tobytes()
        assert found.tokenizer().encode(TEXT).tolist() == source.tokenizer().encode(TEXT).tolist()
        assert found.tokenizer().eot_id == source.tokenizer().eot_id
        assert made.parameters == parameter_table(source.config).count
        assert sum(made.tensors.values()) == len(read_gguf(gguf.path).names())
    assert gguf.size_bytes == Path("m.gguf").stat().st_size
    assert folder.size_bytes == sum(file.stat().st_size for file in Path("folder").iterdir())
    assert open_source(Path("m.gguf")).tokenizer_json() == open_source(again.path).tokenizer_json()


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0"])
def test_narrower_types_are_those_of_the_file(run: Path, kind: Any) -> None:
    made = export(run, type=kind, out="m.gguf")
    model = read_gguf(made.path)
    assert model.kind("transformer.h.0.attn.c_attn.weight").name == kind
    assert made.tensors == {
        name: sum(model.kind(one).name == name for one in model.names()) for name in made.tensors
    }
    assert model.name == "my run"
    if kind == "bf16":
        folder = open_source(export(run, to="hf", type="bf16").path)
        assert "BF16" in (folder.path / "model.safetensors").read_bytes()[:2000].decode("latin1")
        with folder.weights() as read, open_source(made.path).weights() as other:
            for one in parameter_table(folder.config).parameters:
                if len(one.shape) > 1 and "wpe" not in one.name:  # others are f32 in GGUF files
                    assert np.array_equal(read(one), other(one)), one.name


def test_what_is_known_of_the_tokens_goes_along(tmp_path: Path) -> None:
    source = open_source(make_run(tmp_path / "run"))
    tokenizer = source.tokenizer()
    end, begin = tokenizer.eot_id, int(tokenizer.encode("q")[0])
    assert end is not None
    facts = TokenizerFacts(
        (end, begin), {"bos_token": "q", "eos_token": "<|endoftext|>"}, "{{ messages }} é\n"
    )
    views = parameter_table(source.config).file_views(source.flat())
    save_model_folder(tmp_path / "m", source.config, views, source.tokenizer_json(), facts)
    made = export(tmp_path / "m", out="m.gguf")
    vocabulary = read_gguf(made.path).vocabulary()
    assert vocabulary.chat_template == facts.chat_template
    special = vocabulary.special
    assert (special.bos, special.eos, special.add_bos) == (begin, end, False)
    folder = export(tmp_path / "m", out="folder")
    assert open_source(folder.path).facts == facts
    back = open_source(export(made.path, out="back").path).facts
    assert (back.chat_template, back.special) == (facts.chat_template, facts.special)
    assert back.end_ids == (end,)  # a GGUF file has one


def test_a_token_before_every_prompt_goes_along(tmp_path: Path) -> None:
    source = open_source(make_run(tmp_path / "run"))
    document = json.loads(source.tokenizer_json())
    first = source.tokenizer().encode("q")[0]
    text = {"Sequence": {"id": "A", "type_id": 0}}
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "q", "type_id": 0}}, text],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"q": {"id": "q", "ids": [int(first)], "tokens": ["q"]}},
    }
    views = parameter_table(source.config).file_views(source.flat())
    save_model_folder(tmp_path / "m", source.config, views, json.dumps(document).encode())
    assert open_source(tmp_path / "m").tokenizer().prompt_start == (first,)
    special = read_gguf(export(tmp_path / "m", out="m.gguf").path).vocabulary().special
    assert (special.bos, special.add_bos) == (first, True)


def test_crystalline_models_are_folders_only(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train("bpe", [TEXT, TEXT], 280)
    counts = np.ones(tokenizer.vocab_size, np.int64)
    crystal = build_crystal(tokenizer, counts)
    run = make_run(
        tmp_path / "run", tokenizer=tokenizer, crystal=crystal.to_json(), attention="crystalline"
    )
    with pytest.raises(UsageError, match="crystalline attention cannot be a GGUF file"):
        export(run)
    made = export(run, to="hf", measure=[TEXT])
    assert made.cost is not None
    assert made.cost.perplexity == made.cost.float32
    assert open_source(made.path).flat().tobytes() == open_source(run).flat().tobytes()


# --- names ----------------------------------------------------------------------------------------


def test_names_are_made_of_the_models(run: Path) -> None:
    assert str(export(run).path) == "my run-f32.gguf"
    assert str(export(run, to="hf").path) == "my run-f32"
    assert str(export(run, type="q8_0").path) == "my run-q8_0.gguf"
    step = run / "checkpoints" / "step-00000010"
    assert str(export(step, type="bf16").path) == "my run-step-00000010-bf16.gguf"
    assert str(export(run / "latest", type="f16").path) == "my run-step-00000015-f16.gguf"
    assert str(export_model(run, ExportSettings(), checkpoint="latest").path) == (
        "my run-step-00000015-f32.gguf"
    )
    assert str(export(Path("my run-f32")).path) == "my run-f32-f32.gguf"
    assert str(export(Path("my run-q8_0.gguf"), type="f16").path) == "my run-q8_0-f16.gguf"


def test_the_checkpoint_that_was_asked_for_is_written(run: Path) -> None:
    made = export_model(run, ExportSettings(), checkpoint="step-00000010", measure=[TEXT])
    assert made.cost is not None
    assert made.cost.perplexity == made.cost.float32  # of the same checkpoint
    assert made.source.name == "step-00000010"
    assert made.choice == ""
    expected = open_source(run, "step-00000010").flat()
    assert open_source(made.path).flat().tobytes() == expected.tobytes()
    assert export(run).choice == "best"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "q8_0", "to": "hf"}, "--type q8_0 cannot be had in a folder"),
        ({"type": "q4_0", "out": "folder"}, "--type q4_0 cannot be had in a folder"),
        ({"type": "f16", "out": "m.bin"}, "--type f16 cannot be had in a folder"),
        ({"type": "q5_0"}, "--type is 'q5_0'. It must be f32, f16, bf16, q8_0 or q4_0."),
        ({"to": "onnx"}, "--to is 'onnx'. It must be gguf or hf."),
        ({"to": "hf", "out": "m.gguf"}, "--to hf makes a folder"),
        ({"out": ""}, "is no name of a file"),
        ({"out": "a\0b"}, "is no name of a file"),
        ({"out": "taken.gguf"}, "taken.gguf is there already"),
        ({"out": "taken"}, "taken is a folder. Name a new one with --out."),
        ({"to": "gguf", "out": "taken"}, "taken is a folder. Name a file in it with --out."),
        ({"to": "gguf", "out": "."}, "is no name of a file"),
        ({"out": "dangling.gguf"}, "dangling.gguf is there already"),
        ({"out": "dangling"}, "dangling is there already"),
        ({"out": "nowhere/m.gguf"}, "nowhere is no folder. Make it first"),
        ({"out": "nowhere/m"}, "nowhere is no folder. Make it first"),
        ({"out": "taken.gguf/m"}, "taken.gguf is no folder"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(
    run: Path, settings: dict[str, Any], words: str
) -> None:
    Path("taken").mkdir()
    Path("taken", "file").write_text("mine")
    Path("taken.gguf").write_text("mine")
    Path("dangling.gguf").symlink_to("gone")
    Path("dangling").symlink_to("gone")
    before = sorted(map(str, Path().rglob("*")))
    with pytest.raises(UsageError) as caught:
        export(run, **settings)
    assert words in str(caught.value)
    assert caught.value.advice
    assert sorted(map(str, Path().rglob("*"))) == before
    assert Path("taken.gguf").read_text() == "mine"


@pytest.mark.parametrize(
    ("kind", "shape", "words"),
    [
        ("word", {}, "the tokenizer cannot be held by a GGUF file"),
        ("bpe", {"architecture": "llama", "sliding_window": 3}, "a sliding window of 3 positions"),
    ],
)
def test_what_gguf_cannot_hold_is_refused(
    tmp_path: Path, kind: str, shape: dict[str, Any], words: str
) -> None:
    tokenizer = Tokenizer.train(kind, [TEXT, TEXT], 280)
    run = make_run(tmp_path / "run", tokenizer=tokenizer, **shape)
    with pytest.raises(CrystallineError, match=words):
        export(run)
    assert list(Path().iterdir()) == []
    made = export(run, to="hf")
    assert canonical(open_source(made.path).config) == canonical(open_source(run).config)


def test_damage_that_is_met_on_the_way_leaves_nothing(run: Path) -> None:
    made = export(run, to="hf", out="model")
    file = made.path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    file.write_bytes(data)
    for name in ("m.gguf", "m"):
        with pytest.raises(CheckpointError, match="is not finite"):
            export(made.path, out=name)
    assert [entry.name for entry in Path().iterdir()] == ["model"]


def test_an_empty_folder_may_be_filled(run: Path) -> None:
    Path("empty").mkdir()
    assert open_source(export(run, out="empty").path).config.num_layers == 2


# --- how it is written ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.gguf", "folder"])
def test_tensors_are_in_memory_one_at_a_time(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run", "llama", num_layers=12, embed_dim=128, mlp_dim=512)
    table = parameter_table(open_source(run).config)
    largest = 4 * max(math.prod(one.shape) for one in table.parameters)
    assert largest < table.count * 4 / 15
    export(run, out="warm-" + name)  # modules and tables that stay
    tracemalloc.start()
    try:
        export(run, out=name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The tensor, its part in the file's order, and blocks of a few MB at the tokenizer's size.
    assert peak < 4 * largest + 1_500_000


@pytest.mark.parametrize("name", ["m.gguf", "folder"])
def test_progress_comes_to_its_end(run: Path, name: str) -> None:
    seen: list[tuple[int, int]] = []
    made = export_model(
        run, ExportSettings(out=Path(name)), writing=lambda *both: seen.append(both)
    )
    assert seen == sorted(seen)
    assert len(seen) == sum(made.tensors.values())
    assert seen[-1][0] == seen[-1][1] > 4 * made.parameters - 1
    assert len({total for _, total in seen}) == 1


# --- what it costs --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_the_cost_is_that_of_the_file(run: Path, kind: Any) -> None:
    documents = [TEXT * 3, "a lazy dog"]
    seen: list[tuple[int, int]] = []
    made = export_model(
        run,
        ExportSettings(type=kind, out=Path("m.gguf")),
        measure=documents,
        measuring=lambda *both: seen.append(both),
    )
    cost = made.cost
    assert cost is not None

    def perplexity(place: Path) -> float:
        model = open_model(place, cache="float32")
        return score_text(model.scheduler, model.tokenizer, documents).perplexity

    assert cost.float32 == perplexity(run)
    assert cost.perplexity == perplexity(made.path)
    assert cost.type == kind
    assert (cost.perplexity == cost.float32) == (kind == "f32")
    assert seen == sorted(seen)
    assert seen[-1] == (2 * cost.tokens, 2 * cost.tokens)


def test_quantized_types_are_measured_on_what_the_run_held_out(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 200)
    prepared = prepare([text], kind="byte", vocab_size=257, val_fraction=0.1)
    run = make_run(
        tmp_path / "run",
        tokenizer=Tokenizer.load(prepared.tokenizer_path),
        state={"tokens_sha256": prepared.tokens_sha256},
    )
    cost = export(run, type="q8_0").cost
    assert cost is not None
    assert cost.tokens == prepared.val_tokens - 1
    assert export(run, type="bf16").cost is None  # not unasked
    held_out = (TEXT * 200)[-prepared.val_tokens :]
    assert export(run, type="q8_0", out="b.gguf", measure=[held_out]).cost == cost
    copied = export(run, to="hf")  # which is no run any more
    assert export(copied.path, type="q8_0").cost is None
    prepared.token_path.write_bytes(prepared.token_path.read_bytes()[:-1])
    assert export(run, type="q8_0", out="c.gguf").cost is None


def test_text_that_cannot_be_measured_is_told_first(tmp_path: Path) -> None:
    char = Tokenizer.train("char", ["ab", "ba"], 0)
    run = make_run(tmp_path / "run", tokenizer=char)
    for text in ("xyz", "", "a"):
        with pytest.raises(DataError):
            export(run, measure=[text])
    assert list(Path().iterdir()) == []


def test_costs_are_told_in_percent() -> None:
    assert str(Cost("q8_0", 9.9999, 10.0, 5)) == "q8_0: perplexity 10, float32 10 (+0.00 %)"
    assert str(Cost("q4_0", math.inf, math.inf, 5)) == "q4_0: perplexity inf, float32 inf"


# --- from Python ----------------------------------------------------------------------------------


def test_a_loaded_model_writes_itself(run: Path) -> None:
    model = load(run)
    made = model.export("m.gguf", type="q8_0", measure=TEXT)
    assert made.form == "gguf"
    assert made.cost is not None
    assert canonical(load(made).config) == canonical(model.config)
    folder = model.export("folder/")
    assert load(folder).generate("the", max_tokens=5, temperature=0) == model.generate(
        "the", max_tokens=5, temperature=0
    )
    seen: list[tuple[int, int]] = []
    model.export(Path("c.gguf"), on_progress=lambda *both: seen.append(both))
    assert seen
    picked = load(run, checkpoint="latest")
    assert picked.export("latest.gguf").source.name == "step-00000015"


@pytest.mark.parametrize(
    ("out", "settings", "words"),
    [
        ("m", {"type": "q8_0"}, "type q8_0 cannot be had in a folder"),
        ("m.gguf", {"to": "hf"}, "to hf makes a folder, and out m.gguf is the name"),
        ("m.gguf", {"type": 8}, "type is 8"),
        ("", {}, "out '.' is no name"),
        ("m.gguf", {"measure": 3}, "the text to measure is int"),
        (3, {}, "out is int. It must be a string or a path."),
    ],
)
def test_errors_are_in_the_words_of_python(
    run: Path, out: Any, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(run).export(out, **settings)
    assert words in str(caught.value)
    assert "--" not in str(caught.value)
