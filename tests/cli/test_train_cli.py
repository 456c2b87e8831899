"""cllm-train as a user meets it: help, whole runs, resuming, stopping, and every wrong input."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crystalline.cli import train as cli
from crystalline.formats.checkpoint import MANIFEST, MODEL, STATE, inspect_checkpoint
from crystalline.formats.rundir import RunDir, read_toml
from crystalline.runs.layers import field_names
from crystalline.train.config import TrainConfig
from crystalline.train.metrics import read_metrics
from crystalline.train.precision import Choice, choose
from tests.permissions import permissions_hold
from tests.surroundings import own_surroundings

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from crystalline.cli.train import main; sys.exit(main())"
COMMAND = [sys.executable, "-c", PROGRAM]
_FLAGS = """--tokenizer --text-field --vocab-size --embed-dim --num-layers --num-heads --seq-len
    --batch-size
    --learning-rate --epochs --max-steps --minutes --workers --threads --checkpoint-dir --config
    --recursive-depth --sphere-timeout --health-interval --hold
    --resume --precision --dropout --min-lr --warmup-steps --lr-schedule --optimizer --weight-decay
    --beta1 --beta2 --grad-clip --accumulation-steps --eval-interval --save-interval --keep
    --val-fraction --seed --lanes --log-interval --json --plain --quiet --version --help
    --crystalline-epsilon --crystalline-k --crystalline-similarity --crystalline-schedule --init
    --positions --attention --freeze-lambda --discovery-interval --plan --eval-tokens
    --architecture --num-kv-heads --head-size --mlp-dim --rope-theta --sliding-window
    --no-tie-embeddings --init-from --lora-rank --lora-alpha --patience --save-epochs
    --diagnostics-interval
    --eval-suite --save-while-training --max-memory --recompute
    --log-level --log-file --verbose --create --profile
    --step-decay-factor --step-decay-steps
    --no-share-cores --pin"""
FLAGS = _FLAGS.split()
KEYS = {
    "final_step", "train_loss", "val_loss", "val_bits_per_byte", "tokens_per_second", "seconds",
    "weights_sha256", "run_dir", "workers", "precision", "isa", "val_tokens",
}  # fmt: skip
_TINY = """--tokenizer char --num-layers 1 --num-heads 2 --embed-dim 12 --seq-len 9 --batch-size 13
    --eval-interval 10 --save-interval 10 --log-interval 5 --workers 2 --plain"""
TINY = _TINY.split()


def chosen() -> Choice:
    """What `--precision auto` has found for TINY, out of the cache."""
    return choose(TrainConfig(embed_dim=12, num_heads=2, seq_len=9))


@pytest.fixture(autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    own_surroundings(tmp_path_factory, monkeypatch)


@pytest.fixture
def call(call_train):
    return call_train


@pytest.fixture
def run(tmp_path: Path, text: Path, call) -> Path:
    """A run of 20 steps, with checkpoints of steps 10 and 20."""
    path = tmp_path / "run"
    code, _, err = call(text, *TINY, "--max-steps", 20, "--checkpoint-dir", path)
    assert code == 0, err
    return path


def start(*argv: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def is_one_sentence_with_advice(err: str) -> bool:
    *_, last = err.splitlines()
    return last.startswith("cllm-train: error: ") and "Traceback" not in err and last.endswith(".")


# --- help and version -----------------------------------------------------------------------------


def test_help_has_every_flag_and_examples(call) -> None:
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", out))
    assert found == set(FLAGS)
    assert len(re.findall(r"^  cllm-train ", out, re.MULTILINE)) >= 3
    assert "None" not in out
    entries: list[str] = []  # begin in the third column, whatever the frame is drawn with
    for line in out[out.index("--tokenizer {") - 2 :].splitlines():
        if line[2:].startswith("-"):
            entries.append(line)
        else:
            entries[-1] += line
    assert len(entries) == len(FLAGS) - 2  # --help stands elsewhere, --threads with --workers
    assert [entry for entry in entries if "(default:" not in re.sub(r"[\s│]+", " ", entry)] == []


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_answer_at_once(flag: str) -> None:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        with start(flag) as process:
            out, _ = process.communicate(timeout=30)
        times.append(time.perf_counter() - began)
        assert process.returncode == 0
        assert out
    assert min(times) < 0.5


def test_version_names_the_instruction_set(call) -> None:
    from crystalline import __version__
    from crystalline._kernels import isa

    expected = f"crystalline {__version__} (isa: {isa.level()})\n"
    assert call("--version") == (0, expected, "")


def test_other_systems_get_a_plain_sentence(call, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    code, _, err = call("text.txt")
    assert code == 1
    assert err == (
        "cllm-train: error: crystalline trains on Linux only, and this is darwin. "
        "Use a Linux machine, container or virtual machine.\n"
    )


# --- whole runs -----------------------------------------------------------------------------------


def test_json_is_one_object_and_nothing_else(call, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    code, out, err = call(text, *TINY, "--max-steps", 20, "--checkpoint-dir", path, "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    result = json.loads(out)
    assert set(result) == KEYS
    assert result["final_step"] == 20
    assert result["workers"] == 2
    assert result["precision"] == chosen().precision
    assert result["run_dir"] == str(path)
    assert re.fullmatch("[0-9a-f]{64}", result["weights_sha256"])
    assert result["val_loss"] < 3.5
    assert "Finished step 20" in err
    assert f"cllm-infer {path}" in err


def test_the_run_directory_holds_what_is_documented(run: Path, text: Path) -> None:
    names = sorted(entry.name for entry in run.iterdir())
    assert names == [
        "best", "checkpoints", "config.toml", "latest", "metrics.jsonl", "run.lock",
        "status.json", "tokenizer.json", "train.log",
    ]  # fmt: skip
    info = inspect_checkpoint(run / "latest")
    assert info.step == 20
    stored = read_toml(run / "config.toml")
    assert stored["data"] == [str(text)]
    assert stored["workers"] == 2
    described = {name: value for name, value in stored.items() if name in info.train_config}
    assert described == {k: v for k, v in info.train_config.items() if v is not None}
    assert set(info.train_config) == field_names(TrainConfig)
    lines = read_metrics(run / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [5, 10, 15, 20]
    assert [line["step"] for line in lines if "val_loss" in line] == [10, 20]


def test_its_config_makes_the_same_run_again(call, run: Path, tmp_path: Path) -> None:
    code, out, err = call(
        "--config", run / "config.toml", "--checkpoint-dir", tmp_path / "again", "--json", "--plain"
    )
    assert code == 0, err
    from crystalline.formats.checkpoint import load_model, weights_sha256
    from crystalline.model.params import parameter_table

    model = load_model(run / "latest")
    again = json.loads(out)["weights_sha256"]
    assert weights_sha256(model.weights, parameter_table(model.config)) == again


def test_settings_come_from_everywhere(call, text: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my.toml").write_text("seed = 1\nbeta1 = 0.5\nkeep = 1\n")
    monkeypatch.setenv("CLLM_SEED", "2")
    monkeypatch.setenv("CLLM_BETA1", "0.6")
    monkeypatch.setenv("CLLM_TOP_K", "5")  # a setting of cllm-infer
    code, _, err = call(
        text, *TINY, "--config", tmp_path / "my.toml", "--seed", 3, "--max-steps", 1,
        "--checkpoint-dir", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    stored = read_toml(tmp_path / "run" / "config.toml")
    assert (stored["seed"], stored["beta1"], stored["keep"]) == (3, 0.6, 1)


def test_the_resolved_settings_are_shown(call, text: Path) -> None:
    code, out, err = call(text, *TINY, "--max-steps", 3)
    assert (code, out) == (0, "")
    run = next(Path("runs").iterdir())
    assert re.fullmatch(r"\d{8}-\d{6}-\d+(\.\d)?[KM]?", run.name)
    for words in (
        "text.txt", "1 layer, 2 heads, 12 channels, context 9", "3 of 13 × 9 tokens",
        "warm-up 0 (not 100: the run is short)", str(run),
        f"2 workers, {chosen()}, ",
    ):  # fmt: skip
        assert words in err


def test_quiet_is_quiet(call, text: Path) -> None:
    assert call(text, *TINY, "--max-steps", 3, "--quiet") == (0, "", "")


def test_sizes_itself_from_the_text(call, text: Path) -> None:
    code, _, err = call(text, "--max-steps", 2, "--seq-len", 8, "--vocab-size", 300, "--plain")
    assert code == 0, err
    assert "2 layers, 2 heads, 64 channels" in err


def test_minutes_end_a_run_in_time(call, text: Path) -> None:
    began = time.monotonic()
    code, out, err = call(text, *TINY, "--minutes", 0.03, "--json")
    assert code == 0, err
    assert json.loads(out)["seconds"] < 4
    assert time.monotonic() - began < 20
    assert json.loads(out)["final_step"] > 5


def test_fewer_windows_than_lanes_still_train(call, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("abcdefghij" * 4)
    code, _, err = call(tmp_path / "short.txt", *TINY, "--max-steps", 5)
    assert code == 0, err


# --- resuming -------------------------------------------------------------------------------------


def test_resuming_gives_the_bits_of_an_undisturbed_run(call, run: Path, text: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "step-00000020")
    code, out, err = call("--resume", run, "--workers", 5, "--json", "--plain")
    assert code == 0, err
    resumed = json.loads(out)
    straight = json.loads(call(text, *TINY, "--max-steps", 20, "--json")[1])
    assert resumed["workers"] == 5
    assert resumed["weights_sha256"] == straight["weights_sha256"]
    assert resumed["val_loss"] == straight["val_loss"]
    lines = read_metrics(run / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [5, 10, 15, 20]


@pytest.mark.parametrize("place", ["checkpoints/step-00000010", "latest", ""])
def test_places_to_resume_from(call, run: Path, place: str) -> None:
    code, out, err = call("--resume", run / place, "--max-steps", 25, "--json", "--plain")
    assert code == 0, err
    assert json.loads(out)["final_step"] == 25
    from_ten = place.startswith("checkpoints")
    assert f"from step {10 if from_ten else 20} on" in err


def test_saving_needs_neither_the_cache_nor_old_checkpoints(call, run: Path) -> None:
    """Both hold tokenizer.json, and both may go while a run goes on."""
    before = inspect_checkpoint(run / "latest").tokenizer_path.read_bytes()
    shutil.rmtree(run / "checkpoints" / "step-00000010")
    code, _, err = call("--resume", run, "--max-steps", 60, "--keep", 1, "--plain")
    assert (code, "cannot be written" in err) == (0, False), err
    assert inspect_checkpoint(run / "latest").tokenizer_path.read_bytes() == before


def test_a_bare_resume_takes_the_newest_run(call, text: Path) -> None:
    assert call(text, *TINY, "--max-steps", 10, "--checkpoint-dir", "runs/a")[0] == 0
    assert call(text, *TINY, "--max-steps", 10, "--checkpoint-dir", "runs/b")[0] == 0
    code, out, err = call("--resume", "--max-steps", 12, "--json", "--plain")
    assert code == 0, err
    assert json.loads(out)["run_dir"] == "runs/b"
    code, out, err = call("--max-steps", 12, "--json", "--checkpoint-dir", "runs/a", "--resume")
    assert code == 0, err
    assert json.loads(out)["run_dir"] == "runs/a"


def test_a_finished_run_says_its_result_again(call, run: Path) -> None:
    code, out, _ = call("--resume", run, "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["final_step"] == 20


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        (["--epochs", "1"], 26),  # of 3024 training tokens, 117 a step
        (["--max-steps", "22", "--epochs", "9"], 22),
        (["--eval-interval", "0", "--save-interval", "0", "--keep", "1"], 20),
        (["--max-steps", "21", "--precision", "auto", "--seed", "1337"], 21),
    ],
)
def test_what_a_resumed_run_may_change(call, run: Path, flags: list[str], steps: int) -> None:
    code, out, err = call("--resume", run, *flags, "--json", "--plain")
    assert code == 0, err
    assert json.loads(out)["final_step"] == steps
    assert read_toml(run / "config.toml")["max_steps"] == steps


def test_a_run_of_before_the_crystalline_settings_is_resumed(call, run: Path) -> None:
    """What did not exist yet had its default, and may not change either."""
    new = {
        "crystalline_epsilon", "crystalline_k", "crystalline_similarity", "freeze_lambda",
        "crystalline_schedule", "init", "positions", "attention", "discovery_interval",
    }  # fmt: skip
    checkpoint = (run / "latest").resolve()
    document = json.loads((checkpoint / STATE).read_text())
    document["train"] = {k: v for k, v in document["train"].items() if k not in new}
    assert len(document["train"]) == len(field_names(TrainConfig)) - len(new)
    content = json.dumps(document).encode()
    (checkpoint / STATE).write_bytes(content)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][STATE] = {"size_bytes": len(content), "sha256": digest}
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))
    lines = (run / "config.toml").read_text().splitlines(keepends=True)
    old = [line for line in lines if line.partition(" = ")[0] not in new]
    (run / "config.toml").write_text("".join(old))
    code, _, err = call("--resume", run, "--crystalline-epsilon", 0.1)
    assert code == 2
    assert "--crystalline-epsilon 0.1 differs from the 0.0 that the run" in err
    code, out, err = call("--resume", run, "--max-steps", 25, "--json", "--plain")
    assert code == 0, err
    assert json.loads(out)["final_step"] == 25
    assert 'init = "normal"' in (run / "config.toml").read_text()
    code, _, err = call(  # and its config.toml makes a new run
        "--config", run / "config.toml", "--max-steps", 2, "--checkpoint-dir", "new", "--plain"
    )
    assert code == 0, err


def test_more_minutes_on_resuming(call, run: Path) -> None:
    code, out, err = call("--resume", run, "--minutes", 0.02, "--json", "--plain")
    assert code == 0, err
    assert json.loads(out)["final_step"] > 20
    assert json.loads(out)["seconds"] < 4
    steps = read_toml(run / "config.toml")["max_steps"]
    code, out, err = call("--resume", run, "--minutes", 0.02, "--json", "--plain")  # and again
    assert code == 0, err
    assert read_toml(run / "config.toml")["max_steps"] != steps  # fitted anew


@pytest.mark.parametrize(
    ("flag", "value", "stored"),
    [
        ("--seed", "5", "1337"),
        ("--lanes", "24", "12"),
        ("--batch-size", "14", "13"),
        ("--embed-dim", "14", "12"),
        ("--learning-rate", "0.5", "0.001"),
        ("--tokenizer", "byte", "char"),
        ("--val-fraction", "0.2", "0.1"),
        ("--dropout", "0.1", "0.0"),
        ("--init", "lattice", "normal"),
        ("--crystalline-k", "5", "16"),
    ],
)
def test_what_a_resumed_run_may_not_change(call, run: Path, flag, value, stored) -> None:
    before = (run / "config.toml").read_bytes()
    code, out, err = call("--resume", run, flag, value)
    assert (code, out) == (2, "")
    assert f"{flag} {value} differs from the {stored}" in err
    assert is_one_sentence_with_advice(err)
    assert (run / "config.toml").read_bytes() == before


def test_resuming_on_other_text_is_refused(call, run: Path, text: Path) -> None:
    text.write_text(text.read_text() + "something new")
    code, _, err = call("--resume", run)
    assert code == 3
    assert "is not the text that the checkpoint" in err
    assert is_one_sentence_with_advice(err)


def test_resuming_to_an_earlier_step_is_refused(call, run: Path) -> None:
    code, _, err = call("--resume", run, "--max-steps", 15)
    assert code == 2
    assert "has done 20 steps, more than the 15 wanted. Use --max-steps 21 or more." in err


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_checkpoint_is_found_and_another_offered(call, run: Path, damage: str) -> None:
    path = run / "checkpoints" / "step-00000020" / MODEL
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-1]
    else:
        data[-9] ^= 4
    path.write_bytes(data)
    code, _, err = call("--resume", run)
    assert code == 4
    assert MODEL in err
    assert is_one_sentence_with_advice(err)
    offered = re.search(r"--resume (\S+)\.", err)
    assert offered is not None
    assert offered[1] == str(run / "checkpoints" / "step-00000010")
    code, out, err = call("--resume", offered[1], "--json", "--plain")
    assert code == 0, err
    assert json.loads(out)["final_step"] == 20
    inspect_checkpoint(run / "latest")  # written anew


def test_places_that_cannot_be_resumed(call, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "checkpoints" / "step-00000020", tmp_path / "model")
    (tmp_path / "empty").mkdir()
    for place, words in (
        (tmp_path / "nowhere", "there is no run at"),
        (tmp_path / "model", "is a model, not a run"),
        (tmp_path / "empty", "holds no checkpoint"),
        (run / "checkpoints" / "step-00000099", "step-00000099"),
        (tmp_path / "text.txt", "there is no run at"),
    ):
        code, _, err = call("--resume", place)
        assert code == 4, err
        assert words in err
        assert is_one_sentence_with_advice(err)
    code, _, err = call("--resume", run, "--checkpoint-dir", tmp_path / "other")
    assert code == 2
    assert "cannot be combined" in err
    assert call("--resume")[0] == 4  # no runs/ here


def test_going_back_is_where_the_run_is_then(call, run: Path) -> None:
    """Also when nothing is saved any more: what the last line says must lead there."""
    place = run / "checkpoints" / "step-00000010"
    code, out, err = call("--resume", place, "--max-steps", 10, "--json", "--plain")
    assert code == 0, err
    assert json.loads(out)["final_step"] == 10
    assert (run / "latest").readlink() == Path("checkpoints/step-00000010")
    code, out, err = call("--resume", run, "--max-steps", 12, "--json", "--plain", "--keep", 2)
    assert code == 0, err
    assert json.loads(out)["final_step"] == 12
    # What the run left behind goes first, although its step is the highest.
    assert sorted(os.listdir(run / "checkpoints")) == ["step-00000010", "step-00000012"]


def test_a_checkpoint_outside_of_its_run(call, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "checkpoints" / "step-00000020", tmp_path / "lone")
    code, _, err = call("--resume", tmp_path / "lone")
    assert code == 4
    assert "Put it into the folder checkpoints/ of the run, and name the run." in err
    (tmp_path / "lone" / "optimizer.safetensors").unlink()
    assert "has no optimizer state to go on with" in call("--resume", tmp_path / "lone")[2]


@pytest.mark.parametrize("name", [".", "config.toml", "checkpoints/step-00000020/state.json"])
def test_files_that_may_not_be_read(call, run: Path, name: str) -> None:
    (run / name).chmod(0)
    with permissions_hold():
        code, _, err = call("--resume", run)
        again, _, _ = call("--resume", run / "best")
    (run / name).chmod(0o755)
    assert code == again == 4
    assert "cannot be read (Permission denied). Check its permissions." in err
    assert "damaged" not in err


def test_a_checkpoint_of_another_version_is_refused(call, run: Path, monkeypatch) -> None:
    fields = field_names(TrainConfig) - {"beta2"}
    monkeypatch.setattr("crystalline.runs.stored.field_names", lambda _: fields)
    code, _, err = call("--resume", run)
    assert code == 4
    assert "has a setting 'beta2', unknown to this program" in err


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, text: Path, number, code) -> None:
    run = tmp_path / "run"
    with start(text, *TINY, "--max-steps", 10**7, "--checkpoint-dir", run, "--json") as process:
        try:
            deadline = time.monotonic() + 30
            while not (run / "latest").is_symlink():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code, err
    result = json.loads(out)
    step = result["final_step"]
    assert err.splitlines()[-1] == (f"Saved step {step:,}. Resume with: cllm-train --resume {run}")
    assert inspect_checkpoint(run / "latest").step == step
    RunDir.open(run).close()  # nobody holds it


def test_interrupting_the_preparation_leaves_nothing(
    call, tmp_path: Path, text: Path, monkeypatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crystalline.runs.begin.prepare_text", interrupted)
    code, out, err = call(text, *TINY, "--checkpoint-dir", tmp_path / "run")
    assert (code, out, err) == (130, "", "")
    assert not (tmp_path / "run").exists()


# --- wrong input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--seqlen", "4"], ["--seqlen"]),
        (["--seq-len", "x"], ["--seq-len", "'x' is not a whole number"]),
        (["--vocab-size", "9" * 26], ["--vocab-size is 999", "at most 10,000,000"]),
        (["--seq-len", "0"], ["--seq-len is 0", "at least 1"]),
        (["--optimizer", "rmsprop"], ["'rmsprop'", "adamw"]),
        (["--workers", "0"], ["--workers is 0", "between 1 and 63"]),
        (["--threads", "64"], ["--workers is 64"]),
        (["--lanes", "13"], ["--lanes is 13", "multiple of 12"]),
        (["--beta1", "1"], ["--beta1 is 1.0"]),
        (["--min-lr", "1"], ["--min-lr is 1.0", "--learning-rate"]),
        (["--minutes", "0"], ["--minutes is 0.0"]),
        (["--config", "missing.toml"], ["missing.toml", "No such file"]),
        (["--precision", "int4"], ["'int4'"]),
        (["--val-fraction", "nan"], ["--val-fraction is nan"]),
        (["--learning-rate", "nan"], ["--learning-rate is nan"]),
        (["--no-such", "--json"], ["--no-such"]),
    ],
)
def test_wrong_flags(call, argv: list[str], words: list[str]) -> None:
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert is_one_sentence_with_advice(err)
    for word in words:
        assert word in err
    assert not list(Path().iterdir())


def test_heads_that_do_not_divide_channels(call, text: Path) -> None:
    code, _, err = call(text, "--tokenizer", "char", "--embed-dim", 100, "--num-heads", 7)
    assert code == 2
    assert "--embed-dim 100 cannot be divided among --num-heads 7" in err
    assert not Path("runs").exists()


def wrong_data(folder: Path) -> dict[str, tuple[object, str]]:
    """Name → (what is given as DATA, words of the error)."""
    (folder / "empty").mkdir()
    (folder / "nothing.txt").write_text("")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 8)
    (folder / "latin.txt").write_bytes("naïve café ".encode("latin-1") * 50)
    (folder / "three.txt").write_text("abc")
    (folder / "short.txt").write_text("just a few words")
    return {
        "missing": (folder / "missing.txt", "missing.txt"),
        "empty": (folder / "empty", "empty"),
        "nothing": (folder / "nothing.txt", "nothing.txt"),
        "binary": (folder / "binary.txt", "binary.txt"),
        "latin": (folder / "latin.txt", "latin.txt"),
        "three": (folder / "three.txt", ""),
        "short": (folder / "short.txt", "--seq-len 64"),
    }


@pytest.mark.parametrize(
    "name", ["missing", "empty", "nothing", "binary", "latin", "three", "short"]
)
def test_wrong_data(call, tmp_path: Path, name: str) -> None:
    data, words = wrong_data(tmp_path)[name]
    run = tmp_path / "run"
    code, out, err = call(
        data, "--tokenizer", "char", "--seq-len", 64, "--checkpoint-dir", run, "--plain"
    )
    assert (code, out) == (3, "")
    assert is_one_sentence_with_advice(err)
    assert words in err
    assert not run.exists()


def test_a_directory_that_is_not_empty_or_in_use_or_unwritable(call, text: Path, run: Path) -> None:
    code, _, err = call(text, *TINY, "--checkpoint-dir", run)
    assert code == 2
    assert f"{run} is not empty. Continue it with --resume {run}" in err
    with RunDir.open(run):
        for argv in (("--checkpoint-dir", run), ("--resume", run)):
            code, _, err = call(text, *TINY, *argv)
            assert code == 2
            assert f"{run} is in use by process {os.getpid()}" in err
    code, _, err = call(text, *TINY, "--checkpoint-dir", text / "below-a-file")
    assert code == 2
    assert "cannot be written (Not a directory)" in err
    assert is_one_sentence_with_advice(err)


def test_a_name_that_is_not_utf8_is_remembered(call, text: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9\n.txt")
    shutil.copy(text, path)
    code, _, err = call(path, *TINY, "--max-steps", 2, "--checkpoint-dir", tmp_path / "run")
    assert code == 0, err
    assert read_toml(tmp_path / "run" / "config.toml")["data"] == [str(path)]
    code, _, err = call("--resume", tmp_path / "run", "--max-steps", 3, "--plain")
    assert code == 0, err


# --- steering -------------------------------------------------------------------------------------


class FakeReporter:
    def __init__(self, wishes: list[str]) -> None:
        self.wishes = wishes
        self.shown: list[object] = []

    def poll(self) -> list[str]:
        return self.wishes

    def show(self, snapshot: object) -> None:
        self.shown.append(snapshot)


def test_wishes_become_the_engines_words() -> None:
    reporter = FakeReporter(["workers+", "pause", "workers-", "pause", "checkpoint", "stop"])
    steering = cli._Steering(reporter, cli._ReporterHandler(reporter, 0))
    assert steering.poll() == ["workers+", "pause", "workers-", "resume", "checkpoint", "stop"]


def test_a_run_begins_from_another_and_keeps_its_shape(call, text: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert call(text, *TINY, "--max-steps", 2, "--checkpoint-dir", first)[0] == 0
    begin = (text, "--init-from", first, "--max-steps", 1, "--plain", "--workers", 2)
    code, _, err = call(*begin, "--checkpoint-dir", second)
    assert code == 0, err
    assert f"begun from {first}" in err
    assert inspect_checkpoint(second / "latest").model_config.embed_dim == 12
    code, _, err = call(*begin, "--embed-dim=24", "--checkpoint-dir", tmp_path / "third")
    assert code == 2
    assert "--embed-dim 24 contradicts the model" in err
    code, _, err = call(text, "--init-from", tmp_path / "nothing")
    assert code == 4
    assert str(tmp_path / "nothing") in err
