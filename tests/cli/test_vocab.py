"""cllm-vocab as a user meets it: where the vocabulary comes from, what is shown, wrong input."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import crystalline as cl
from crystalline.cli import vocab_view
from crystalline.cli.vocab import VocabSettings, main
from crystalline.cli.vocab_view import quoted
from crystalline.data.crystal.affixes import Affix, Derivations
from crystalline.data.crystal.neighbors import neighbor_table
from crystalline.data.crystal.tokens import Crystal
from crystalline.data.prepare import PreparedData, crystal_of, prepare
from crystalline.exact import spiral_place
from crystalline.formats.checkpoint import BEST, save_checkpoint, set_pointer
from crystalline.formats.rundir import to_toml
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.train.config import TrainConfig
from tests.runs.test_foundation import model_folder

STDLIB = Path(os.__file__).parent


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def call(capsys):
    """Run the command in this process; return (exit code, stdout, stderr)."""

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def specification() -> Crystal:
    words = (" run", "running", " running", "runs", " dog", None, "\n", "dogs", " dog\tx", "reruns")
    parent = [0, 1, 0, 0, 4, 5, 6, 4, 8, 3]
    affix = [-1, -1, 0, 1, -1, -1, -1, 1, -1, 2]
    affixes = (Affix("ing", "suffix"), Affix("s", "suffix"), Affix("re", "prefix"))
    counts = np.array([90, 5, 50, 20, 80, 0, 70, 8, 1, 3])
    found = Derivations(np.array(parent, np.int32), np.array(affix, np.int32), affixes)
    return Crystal.of(words, counts, found)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A crystal.json. -ing 2, -s 3, re- 5; " run" 7, " dog" 11, newline 13, ..."""
    specification().save(tmp_path / "crystal.json")
    return tmp_path / "crystal.json"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.py"
    path.write_text((STDLIB / "argparse.py").read_text("utf-8"), "utf-8")
    return path


def prepared(text: Path, kind: str = "word") -> PreparedData:
    return prepare([text], kind=kind, vocab_size=900, val_fraction=0.1)


def make_run(path: Path, text: Path, *, crystal: str | None = None, **changes: object) -> Path:
    """A run directory as the trainer leaves it, of two checkpoints."""
    data = prepared(text)
    path.mkdir()
    config = TrainConfig(tokenizer="word", vocab_size=900, val_fraction=0.1)
    values = {"data": [str(text)], **config.to_dict(), "workers": 3, **changes}
    (path / "config.toml").write_text(to_toml(values))
    shutil.copy(data.tokenizer_path, path / "tokenizer.json")
    model = ModelConfig(data.vocab_size, 4, 1, 1, 2)
    flat = np.zeros(parameter_table(model).size, np.float32)
    for step in (3, 6):
        saved = save_checkpoint(
            path,
            step=step,
            model_config=model,
            train_config=config,
            weights=flat,
            moments=(flat, flat),
            tokenizer_path=data.tokenizer_path,
            state={"tokens_sha256": data.tokens_sha256},
            crystal=crystal,
        )
        if step == 3:
            set_pointer(path, BEST, saved)
    return path


# --- what is shown ----------------------------------------------------------------------------


def test_inspect_shows_everything_there_is(call, saved: Path) -> None:
    code, out, err = call("inspect", "reruns", "--from", saved, "--neighbors", 3)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == '"reruns"  token #9 of 10'
    fields = {line[:15].strip(): line[15:] for line in lines if line.startswith("  ") and line[15:]}
    assert fields["number"] == "105 = 3 · 5 · 7"
    assert [line.split(None, 1) for line in lines[2:5]] == [
        ["3", "-s (suffix)"],
        ["5", "re- (prefix)"],
        ["7", '" run" (root)'],
    ]
    assert fields["signature"] == "1, 1, 1"
    assert fields["root"] == '" run" #0'
    assert fields["count"] == "3 (0.92 %), rank 8 of 10"
    assert fields["Ulam place"] == str(spiral_place(105))
    assert fields["clock"] == "ring 8, hour 9"
    assert fields["symmetry"] == "group 9 of 12"
    at = lines.index("  derivations")
    assert lines[at + 1 : at + 5] == [
        '  " run"  7  90 times',
        '  ├─ " running"  -ing  14  50 times',
        '  └─ "runs"  -s  21  20 times',
        '     └─ "reruns"  re-  105  3 times  <',
    ]
    assert [line.split()[-4:] for line in lines[at + 7 :]] == [
        ["0.1972", "21", "21", "4.2"],
        ["0.1015", "7", "7", "4.5"],
        ["0.0890", "14", "7", "6.1"],
    ]
    assert max(map(len, lines)) <= 80


def test_inspect_in_json(call, saved: Path) -> None:
    code, out, _ = call("inspect", "reruns", " dog", "--from", saved, "--json")
    assert code == 0
    answer = json.loads(out)
    crystal = specification()
    assert answer["sha256"] == crystal.sha256
    assert (answer["vocab_size"], answer["generation"]) == (10, 0)
    token, dog = answer["tokens"]
    assert (token["text"], token["number"], token["factors"]) == ("reruns", 105, [3, 5, 7])
    assert [affix["affix"] for affix in token["affixes"]] == ["-s", "re-"]
    assert token["root"]["text"] == " run"
    assert token["derivations"]["text"] == " run"
    assert token["rank"] == 8
    assert (dog["is_root"], dog["number"], dog["rank"], dog["affixes"]) == (True, 11, 2, [])
    assert dog["derivations"]["derived"][0]["text"] == "dogs"
    # the neighbors, by the definition in plain Python
    numbers = [int(n) for n in crystal.numbers]

    def similarity(a: int, b: int) -> float:
        distance = math.dist(spiral_place(a), spiral_place(b))
        return 0.7 * math.gcd(a, b) / max(a, b) + 0.3 / (1 + distance)

    expected = sorted(range(9), key=lambda t: (-similarity(105, numbers[t]), t))[:8]
    assert [other["token"] for other in token["neighbors"]] == expected
    for other in token["neighbors"]:
        assert other["similarity"] == pytest.approx(similarity(105, other["number"]), rel=1e-12)
        assert other["gcd"] == math.gcd(105, other["number"])


def test_neighbors_are_those_of_the_loss(call, text: Path) -> None:
    crystal = crystal_of(prepared(text))
    table = neighbor_table(crystal, 8)
    names = [f"#{token}" for token in range(0, crystal.vocab_size, 97)]
    argv = ("--data", text, "--tokenizer", "word", "--vocab-size", 900, "--json", "--quiet")
    code, out, err = call("inspect", *names, *argv)
    assert (code, err) == (0, "")
    for token in json.loads(out)["tokens"]:
        found = [other["token"] for other in token["neighbors"]]
        assert found == table.ids[token["token"]].tolist()


def test_tokens_are_named_by_text_or_number(call, saved: Path) -> None:
    def texts(*names: str) -> list[str | None]:
        code, out, _ = call("inspect", *names, "--from", saved, "--json")
        assert code == 0
        return [token["text"] for token in json.loads(out)["tokens"]]

    assert texts("running", " running", "#5", "#6", "dog") == [
        "running", " running", None, "\n", " dog",
    ]  # fmt: skip


def test_the_more_frequent_twin_with_a_space_is_mentioned(call, saved: Path) -> None:
    _, _, err = call("inspect", "running", "--from", saved)
    assert err == (
        "cllm-vocab: ' running', with a space before it, is another token (#2), and more frequent\n"
    )
    assert call("inspect", "running", "--from", saved, "--quiet")[2] == ""
    assert call("inspect", "#1", "#5", "runs", "--from", saved, "--quiet")[0] == 0


def test_unknown_tokens_name_the_closest(call, saved: Path) -> None:
    code, out, err = call("inspect", "runnin", "--from", saved)
    assert (code, out) == (3, "")
    assert err.startswith("cllm-vocab: error: 'runnin' is not a token of this vocabulary.")
    assert "'running'" in err
    code, _, err = call("inspect", "zzzzzz", "--from", saved)
    assert code == 3
    assert "several" in err
    for name in ("#10", "#99999999999999999999"):
        code, _, err = call("inspect", name, "--from", saved)
        assert code == 3
        assert f"{name} is outside the vocabulary. Ids are 0 to 9." in err


def test_affixes(call, saved: Path) -> None:
    code, out, _ = call("affixes", "--from", saved)
    assert code == 0
    head, ing, *_ = out.splitlines()
    assert head.split() == ["affix", "prime", "tokens", "count", "as", "in"]
    assert ing.split()[:4] == ["-ing", "2", "1", "50"]
    assert ing.endswith('" running"')
    answer = json.loads(call("affixes", "--from", saved, "--json")[1])["affixes"]
    assert [(a["affix"], a["prime"], a["tokens"], a["count"]) for a in answer] == [
        ("-ing", 2, 1, 50),
        ("-s", 3, 2, 28),
        ("re-", 5, 1, 3),
    ]
    assert answer[1]["examples"][0] == {"text": "runs", "parent": " run"}
    assert (
        len(json.loads(call("affixes", "--from", saved, "--json", "--top", 1)[1])["affixes"]) == 1
    )


def test_a_space_that_is_an_affix_is_seen(call, tmp_path: Path) -> None:
    found = Derivations(np.zeros(2, np.int32), np.array([-1, 0]), (Affix(" ", "prefix"),))
    Crystal.of(["a", " a"], np.ones(2), found).save(tmp_path / "c.json")
    assert "␣-" in call("affixes", "--from", tmp_path / "c.json")[1]
    out = call("inspect", " a", "--from", tmp_path / "c.json")[1]
    assert "2        ␣- (prefix)" in out
    assert '└─ " a"  ␣-  6' in out
    answer = json.loads(call("affixes", "--from", tmp_path / "c.json", "--json")[1])
    assert answer["affixes"][0]["affix"] == " -"


def test_roots(call, saved: Path) -> None:
    code, out, _ = call("roots", "--from", saved)
    assert code == 0
    assert out.splitlines()[1].split()[:5] == ['"', 'run"', "7", "3", "163"]
    answer = json.loads(call("roots", "--from", saved, "--json")[1])["roots"]
    assert [(r["text"], r["derivations"]) for r in answer] == [(" run", 3), (" dog", 1)]
    assert answer[0]["examples"] == [" running", "runs", "reruns"]


def test_long_trees_are_cut(call, tmp_path: Path) -> None:
    n = 30
    found = Derivations(
        np.zeros(n, np.int32),
        np.array([-1, *range(n - 1)], np.int32),
        tuple(Affix(chr(97 + i) * 9, "suffix") for i in range(n - 1)),
    )
    words = [f"w{i}" for i in range(n)]
    Crystal.of(words, np.arange(n)[::-1], found).save(tmp_path / "c.json")
    assert "and 10 more" in call("inspect", "w3", "--from", tmp_path / "c.json")[1]
    assert "w29" in call("inspect", "w3", "--from", tmp_path / "c.json", "--top", 0)[1]


def test_a_vocabulary_without_affixes_says_so(call, tmp_path: Path) -> None:
    found = Derivations(np.arange(1, dtype=np.int32), np.full(1, -1, np.int32), ())
    Crystal.of(["a"], np.ones(1), found).save(tmp_path / "c.json")
    assert call("affixes", "--from", tmp_path / "c.json")[1] == "no affixes\n"
    assert "no token derives" in call("roots", "--from", tmp_path / "c.json")[1]
    code, out, _ = call("inspect", "a", "--from", tmp_path / "c.json")
    assert code == 0
    assert "derivations  none" in out
    assert "neighbors" not in out


@pytest.mark.parametrize("text", ["a" * 60, "日本語" * 20, "\x1b[2J\u202e" * 9, "é" * 23, '"'])
def test_quoted_texts_stay_in_their_column_and_are_printable(text: str) -> None:
    from rich.cells import cell_len

    shown = quoted(text)
    assert cell_len(shown) <= 24
    assert shown.isprintable()


def test_a_remapped_vocabulary_says_so(call, tmp_path: Path) -> None:
    found = Derivations(np.arange(1, dtype=np.int32), np.full(1, -1, np.int32), ())
    Crystal.of(["a"], np.ones(1), found, generation=4).save(tmp_path / "c.json")
    assert "4. remap" in call("inspect", "a", "--from", tmp_path / "c.json")[1]


# --- where it comes from ------------------------------------------------------------------------


def test_text_is_prepared_and_counted(call, text: Path) -> None:
    argv = ("inspect", "parser", "--data", text, "--tokenizer", "word", "--vocab-size", 900)
    code, out, err = call(*argv, "--json")
    assert code == 0, err
    answer = json.loads(out)
    ready = prepared(text)
    assert ready.cached
    assert answer["sha256"] == crystal_of(ready).sha256
    assert (ready.token_path.with_name("crystal.json")).is_file()
    # the folder of the cache, and a file in it, are places too
    for place in (ready.token_path.parent, ready.tokenizer_path):
        assert (
            json.loads(call("affixes", "--from", place, "--json")[1])["sha256"]
            == (answer["sha256"])
        )


def test_a_run_without_crystal_is_counted_in_its_text(call, text: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", text)
    expected = crystal_of(prepared(text)).sha256
    places = [run, run / "latest", run / "best", run / "checkpoints/step-00000003"]
    for place in places:
        code, out, err = call("roots", "--from", place, "--json")
        assert code == 0, err
        assert json.loads(out)["sha256"] == expected
    code, out, _ = call("roots", "--from", run, "--checkpoint", "latest", "--json")
    assert (code, json.loads(out)["sha256"]) == (0, expected)


def test_a_run_that_began_from_a_model_is_counted_with_its_tokenizer(call, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "the dogs"}]
    records = tmp_path / "records.jsonl"
    records.write_text((json.dumps({"body": turns}) + "\n") * 30)
    run = cl.train(
        records, text_field="body", init_from=model_folder(tmp_path / "model"), max_steps=1,
        workers=1, batch_size=12, precision="float32", checkpoint_dir=tmp_path / "run",
    )  # fmt: skip
    for place in (run.path, run.latest):
        code, out, err = call("roots", "--from", place, "--json")
        assert code == 0, err
        assert json.loads(out)["vocab_size"] == 432


def test_a_run_without_checkpoints_is_enough(call, text: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", text)
    shutil.rmtree(run / "checkpoints")
    for name in ("latest", "best"):
        (run / name).unlink()
    code, out, err = call("roots", "--from", run, "--json")
    assert code == 0, err
    assert json.loads(out)["sha256"] == crystal_of(prepared(text)).sha256


def test_the_crystal_of_a_checkpoint_comes_first(call, text: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", text, crystal=specification().to_json())
    text.unlink()
    code, out, err = call("inspect", "reruns", "--from", run, "--json")
    assert code == 0, err
    assert json.loads(out)["sha256"] == specification().sha256
    code, _, err = call("affixes", "--from", run, "--data", tmp_path)
    assert code == 0
    assert "--data is not needed" in err


def test_text_that_is_gone_moved_or_changed(call, text: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", text)
    moved = text.rename(tmp_path / "moved.py")
    code, out, err = call("roots", "--from", run)
    assert (code, out) == (3, "")
    assert "has no crystal.json, and its text cannot be counted" in err
    assert "--data" in err
    code, out, err = call("roots", "--from", run, "--data", moved, "--json")
    assert code == 0, err
    assert json.loads(out)["sha256"] == crystal_of(prepared(moved)).sha256
    # the same tokenizer comes of it, and other tokens
    moved.write_text(moved.read_text("utf-8")[:-1] + "?", "utf-8")
    code, out, err = call("roots", "--from", run, "--data", moved)
    assert (code, out) == (3, "")
    assert re.search(r"is not the text that .*run.* was trained on", err)
    assert "--data" in err


def test_a_folder_with_a_tokenizer_only_cannot_be_counted(call, text: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    shutil.copy(prepared(text).tokenizer_path, tmp_path / "bare")
    for place in (tmp_path / "bare", tmp_path / "bare/tokenizer.json"):
        code, out, err = call("roots", "--from", place)
        assert (code, out) == (3, "")
        assert "bare has no crystal.json and nothing to count tokens in" in err
        assert "--data" in err


def test_names_that_the_system_refuses(call, saved: Path, tmp_path: Path) -> None:
    code, out, err = call("roots", "--from", "x" * 5000)
    assert (code, out) == (4, "")
    assert "cannot be looked into (File name too long)" in err
    assert call("roots", "--from", saved / "below")[0] == 4
    code, _, err = call("inspect", "#" + "9" * 5000, "--from", saved)
    assert code == 3
    assert "is outside the vocabulary" in err
    code, _, err = call("roots", "--data", tmp_path, "--vocab-size", 10**26)
    assert code == 2
    assert "--vocab-size is 1000" in err


def test_a_run_without_a_checkpoint_has_no_vocabulary(call, tmp_path: Path, text: Path) -> None:
    (tmp_path / "run").mkdir()
    config = to_toml({"data": [str(text)], "tokenizer": "char"})
    (tmp_path / "run" / "config.toml").write_text(config, "utf-8")
    code, out, err = call("roots", "--from", tmp_path / "run")
    assert (code, out) == (3, "")
    assert "its tokenizer.json cannot be read (No such file or directory)" in err


def test_places_that_are_nothing(call, tmp_path: Path, saved: Path) -> None:
    code, _, err = call("roots", "--from", tmp_path / "nowhere")
    assert code == 4
    assert "there is no run, checkpoint or tokenizer at" in err
    saved.write_text("{")
    code, _, err = call("roots", "--from", saved)
    assert code == 3
    assert "is damaged (it is not valid JSON" in err


# --- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "no action is given"),
        (["inspct", "a", "--from", "x"], "'inspct' is not an action"),
        (["inspect", "--from", "x"], "no token is given"),
        (["affixes", "a", "--from", "x"], "affixes takes no token"),
        (["inspect", "a"], "no vocabulary is given"),
        (["roots", "--from", "x", "--top", "-1"], "--top is -1"),
        (["roots", "--from", "x", "--neighbors", "-2"], "--neighbors is -2"),
        (["roots", "--data", "x", "--tokenizer", "wrd"], "--tokenizer"),
        (["roots", "--data", "x", "--val-fraction", "1"], "--val-fraction is 1"),
        (["roots", "--from", "x", "--nonsense"], "--nonsense"),
        (["roots", "--data", "x", "--checkpoint", "best"], "--checkpoint best picks from a run"),
        (["roots", "--from", ".", "--checkpoint", "best"], "picks from a run, and . is none"),
    ],
)
def test_wrong_settings_are_one_sentence(call, argv: list[str], words: str) -> None:
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_help_teaches(call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    for word in (
        "inspect",
        "affixes",
        "roots",
        "--from",
        "--data",
        "--neighbors",
        "'#17'",
        "prime",
    ):
        assert word in out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert max(map(len, plain.splitlines())) <= 80


def test_version(call) -> None:
    code, out, _ = call("--version")
    assert code == 0
    assert out.startswith("crystalline ")


def test_defaults_are_those_of_training() -> None:
    settings = VocabSettings("roots", data=("x",))
    assert settings.tokenizer == TrainConfig.tokenizer
    assert settings.vocab_size == TrainConfig.vocab_size


def test_affixes_of_strangers_give_no_orders_to_the_terminal() -> None:
    line = vocab_view._line([("\x1b[2J", "cyan"), ("\x9b31m", ""), (" walk", "")])
    assert line.plain == "?[2J?31m walk"
