"""Checkpoints: everything that a run needs to go on bit for bit, in Hugging Face's layout.

    RUN/checkpoints/step-00000500/
        config.json             GPT-2's keys, as transformers reads them
        tokenizer.json
        model.safetensors       float32, names and shapes of the parameter table
        optimizer.safetensors   the two moments, as m.NAME and v.NAME
        state.json              step, settings, and what else the engine hands over
        crystal.json            the numbers of the vocabulary, of runs that compute with them
        manifest.json           sha256 and size of each file above; written last
    RUN/latest, RUN/best        relative symbolic links to two of them

A checkpoint is written into a hidden directory beside its place, forced to disk
and renamed, so that a directory `step-…` is always whole.  Damage that comes
later is found by the manifest.  What the values of the state mean is left to
`train`; the run directory itself to `rundir`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from crystalline.atomic import sync_directory
from crystalline.data.crystal import CRYSTAL
from crystalline.errors import CheckpointError, SaveError, UsageError
from crystalline.model.config import LAYER_NORM_EPSILON, ModelConfig
from crystalline.model.params import ParameterTable, parameter_table

FORMAT = 1
CHECKPOINTS = "checkpoints"
LATEST = "latest"
BEST = "best"
CONFIG, TOKENIZER, STATE, MANIFEST = "config.json", "tokenizer.json", "state.json", "manifest.json"
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
MODEL_FILES = (CONFIG, TOKENIZER, MODEL)  # what inference needs
FILES = (*MODEL_FILES, OPTIMIZER, STATE)  # and CRYSTAL where a run computes with one

END_OF_TEXT = "<|endoftext|>"
PREFIX = "transformer."
CRYSTALLINE_TYPE = "crystalline-gpt2"  # model_type of a model with crystalline attention

Flat = npt.NDArray[np.float32]

_ASIDE = ".old.tmp"
_HASH_BYTES = 1 << 20
_NAME = re.compile(r"step-(\d{8,})")
_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # buffers of old GPT-2 files, not weights
_GELU_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


class Settings(Protocol):
    """Settings that are stored whole: `TrainConfig`, of which this layer knows no more."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for files."""
        ...


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself."""

    step: int  # optimizer steps done
    model_config: ModelConfig
    train_config: dict[str, Any]  # the fields of TrainConfig
    state: dict[str, Any]
    tokenizer_path: Path
    path: Path
    crystal_path: Path | None  # where the run computes with the numbers of its vocabulary


@dataclass(frozen=True, eq=False)
class Checkpoint(CheckpointInfo):
    """All that a run needs to go on."""

    weights: Flat  # (table.size,)
    m: Flat  # (table.size,) first moment
    v: Flat  # (table.size,) second moment


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model to generate with."""

    config: ModelConfig
    weights: Flat  # (table.size,)
    tokenizer_path: Path
    metadata: dict[str, Any]  # state.json of our own checkpoints, otherwise empty
    path: Path
    crystal_path: Path | None = None  # crystal.json, where the model was trained with one


def save_checkpoint(
    run_dir: Path,
    *,
    step: int,
    model_config: ModelConfig,
    train_config: Settings,
    weights: Flat,
    moments: tuple[Flat, Flat],
    tokenizer_path: Path,
    state: Mapping[str, Any],
    crystal: str | None = None,
    best: bool = False,
) -> Path:
    """Write `run_dir/checkpoints/step-XXXXXXXX`, point `latest` to it, and return its path.

    With `best`, `best` points to it as well.

    `weights` and both `moments` are flat float32 buffers of the parameter table's
    size; `state` is what JSON can hold; `crystal` is the content of crystal.json.  A
    checkpoint of the same step is replaced.  Nothing is copied in memory.

    Raises:
        SaveError: the files could not be written; what was there before is intact.
        ValueError: a buffer has the wrong shape, or `state` holds NaN.
    """
    table = parameter_table(model_config)
    for name, flat in (("weights", weights), ("m", moments[0]), ("v", moments[1])):
        if flat.shape != (table.size,) or flat.dtype != np.float32:
            raise ValueError(
                f"{name} is {flat.dtype}{flat.shape}, the model needs float32({table.size},)"
            )
    state_text = _json_text(
        {
            "format": FORMAT,
            "step": step,
            "model": model_config.to_dict(),
            "train": train_config.to_dict(),
            "state": dict(state),
        }
    )
    folder = run_dir / CHECKPOINTS
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tidy(run_dir)
        temporary.mkdir()
        try:
            shutil.copyfile(tokenizer_path, temporary / TOKENIZER)
            end_of_text = _end_of_text_id(temporary / TOKENIZER)
            config_text = _json_text(_gpt2_config(model_config, end_of_text))
            (temporary / CONFIG).write_text(config_text, encoding="utf-8")
            (temporary / STATE).write_text(state_text, encoding="utf-8")
            _write_tensors(temporary / MODEL, table.views(weights), {"format": "pt"})
            both = {
                f"{moment}.{name}": view
                for moment, flat in zip("mv", moments, strict=True)
                for name, view in table.views(flat).items()
            }
            _write_tensors(temporary / OPTIMIZER, both, {})
            if crystal is not None:
                (temporary / CRYSTAL).write_text(crystal, encoding="utf-8")
            files = {}
            for name in FILES if crystal is None else (*FILES, CRYSTAL):
                _sync_file(temporary / name)
                size_bytes, digest = _fingerprint(temporary / name)
                files[name] = {"size_bytes": size_bytes, "sha256": digest}
            manifest = {"format": FORMAT, "step": step, "saved_at": time.time(), "files": files}
            (temporary / MANIFEST).write_text(_json_text(manifest), encoding="utf-8")
            _sync_file(temporary / MANIFEST)
            sync_directory(temporary)
            _replace_directory(temporary, target)
            sync_directory(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        set_pointer(run_dir, LATEST, target)
        if best:
            set_pointer(run_dir, BEST, target)
    except OSError as error:
        _raise_save_error(run_dir, step, target, error)
    return target


def inspect_checkpoint(path: Path, *, verify: bool = True) -> CheckpointInfo:
    """Return what a checkpoint says about itself, without loading any tensor.

    With `verify`, every file is first compared with the manifest.

    Raises:
        CheckpointError: something is missing, damaged or does not fit together; the
            advice names the newest other checkpoint of the run that is undamaged.
    """
    _require_directory(path)
    if not (path / MANIFEST).is_file():
        raise CheckpointError(
            f"{path} is not a checkpoint that training can resume from ({MANIFEST} is missing)",
            advice=_other_checkpoint(path),
        )
    if verify:
        _verify_or_raise(path, FILES)
    config, document = _read_config(path), _read_json(path, STATE)
    for key, kind in (("step", int), ("model", dict), ("train", dict), ("state", dict)):
        if not isinstance(document.get(key), kind):
            raise CheckpointError(
                f"{path / STATE} has no usable value for '{key}'", advice=_other_checkpoint(path)
            )
    if document.get("format") != FORMAT:
        raise CheckpointError(
            f"{path / STATE} has format {document.get('format')}; this program reads {FORMAT}",
            advice="Use the version of crystalline that wrote it.",
        )
    if document["model"] != config.to_dict():
        raise CheckpointError(
            f"{path / CONFIG} describes another model than {STATE}",
            advice=_other_checkpoint(path),
        )
    return CheckpointInfo(
        step=document["step"],
        model_config=config,
        train_config=document["train"],
        state=document["state"],
        tokenizer_path=path / TOKENIZER,
        path=path,
        crystal_path=_crystal_of(path),
    )


def load_checkpoint(path: Path, *, verify: bool = True) -> Checkpoint:
    """Read a checkpoint directory (see `resolve` for run directories).

    Raises `CheckpointError` as `inspect_checkpoint` does, and for tensors that do not fit.
    """
    info = inspect_checkpoint(path, verify=verify)
    table = parameter_table(info.model_config)
    return Checkpoint(
        **vars(info),
        weights=_read_flat(path / MODEL, table, ""),
        m=_read_flat(path / OPTIMIZER, table, "m."),
        v=_read_flat(path / OPTIMIZER, table, "v."),
    )


def load_model(path: Path) -> LoadedModel:
    """Read the weights of a checkpoint, or of any GPT-2 folder in Hugging Face's layout.

    Tensor names may come without the prefix "transformer."; attention masks and a
    copy of the tied head are passed over; float16 and float64 become float32.
    Where there is a manifest, the files are compared with it.

    Raises:
        CheckpointError: no such folder, damage, or a model that is not GPT-2 as
            `crystalline.model` computes it.
    """
    _require_directory(path)
    if (path / MANIFEST).is_file():
        _verify_or_raise(path, MODEL_FILES)
    config = _read_config(path)
    if not (path / MODEL).is_file():
        raise CheckpointError(
            f"{path} has no {MODEL}",
            advice="Save the model with save_pretrained(..., safe_serialization=True), unsharded.",
        )
    if not (path / TOKENIZER).is_file():
        raise CheckpointError(
            f"{path} has no {TOKENIZER}",
            advice="Save the tokenizer beside the model (a 'fast' tokenizer in transformers).",
        )
    weights = _read_flat(path / MODEL, parameter_table(config), "")
    metadata = _read_json(path, STATE) if (path / STATE).is_file() else {}
    return LoadedModel(config, weights, path / TOKENIZER, metadata, path, _crystal_of(path))


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Return the complete checkpoints of a run, lowest step first."""
    folder = run_dir / CHECKPOINTS
    if not folder.is_dir():
        return []
    found = [
        (int(match[1]), entry)
        for entry in folder.iterdir()
        if (match := _NAME.fullmatch(entry.name)) and (entry / MANIFEST).is_file()
    ]
    return [entry for _, entry in sorted(found)]


def resolve(path: Path, which: str | None = None) -> Path:
    """Return the checkpoint directory that `path` means.

    `path` is a checkpoint (or a model folder), which is returned as it is, or a run
    directory; then `which` picks: "latest", "best", a name such as "step-00000500" or
    a number of steps.  By default the best one, or the latest where none was evaluated.

    Raises:
        CheckpointError: there is no such run or checkpoint.
    """
    _require_directory(path)
    if (path / CONFIG).is_file():
        return path.resolve() if path.is_symlink() else path
    checkpoints = list_checkpoints(path)
    if not checkpoints:
        raise CheckpointError(
            f"{path} holds no checkpoint", advice="Give a run directory, or a model folder."
        )
    if which is None:
        return pointer(path, BEST) or _latest(path, checkpoints)
    if which == LATEST:
        return _latest(path, checkpoints)
    name = f"step-{int(which):08d}" if which.isascii() and which.isdigit() else which
    found = (
        pointer(path, BEST)
        if which == BEST
        else next((entry for entry in checkpoints if entry.name == name), None)
    )
    if found is None:
        steps = ", ".join(str(_step(entry)) for entry in checkpoints)
        raise CheckpointError(
            f"{path} has no checkpoint '{which}'", advice=f"It has those of steps {steps}."
        )
    return found


def tidy(run_dir: Path) -> None:
    """Clear up after a save that was killed; only for the process that owns the run.

    A checkpoint that had stepped aside for its successor goes back to its place.
    Raises `OSError`.
    """
    folder = run_dir / CHECKPOINTS
    for aside in folder.glob(f".step-*{_ASIDE}"):
        target = folder / aside.name[1:].partition(".")[0]
        if not target.exists():
            aside.rename(target)
    for entry in folder.glob(".step-*.tmp"):
        shutil.rmtree(entry)


def set_pointer(run_dir: Path, name: str, checkpoint: Path) -> None:
    """Point `run_dir/name` ("latest" or "best") to a checkpoint of that run, atomically.

    Raises `OSError`.
    """
    temporary = run_dir / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    temporary.symlink_to(Path(CHECKPOINTS, checkpoint.name))
    try:
        os.replace(temporary, run_dir / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(run_dir)


def pointer(run_dir: Path, name: str) -> Path | None:
    """Return the complete checkpoint that `run_dir/name` points to, or None."""
    link = run_dir / name
    if not link.is_symlink():
        return None
    target = run_dir / CHECKPOINTS / link.readlink().name
    return target if (target / MANIFEST).is_file() else None


def prune(run_dir: Path, keep: int, protect: Collection[Path] = ()) -> list[Path]:
    """Remove all checkpoints but the `keep` saved last, the latest, the best and `protect`.

    Returns what was removed.  Raises `OSError`.
    """
    kept = {entry.name for entry in protect}
    kept |= {found.name for name in (LATEST, BEST) if (found := pointer(run_dir, name))}
    newest_first = sorted(list_checkpoints(run_dir), key=_saved_at, reverse=True)
    removed = []
    for entry in newest_first[keep:]:
        if entry.name not in kept:
            # Renamed first: a half-removed directory must not look like a checkpoint.
            doomed = entry.with_name(f".{entry.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
            entry.rename(doomed)
            shutil.rmtree(doomed)
            removed.append(entry)
    return removed


def verify(path: Path, names: Collection[str] = FILES) -> str | None:
    """Return what is wrong with the files of a checkpoint, as a clause, or None.

    A crystal.json is looked at wherever the manifest has one.  The clause names the
    file: "model.safetensors is cut off (10 of 20 bytes)".
    """
    try:
        document = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        optional = [CRYSTAL] if CRYSTAL in document["files"] else []
        files = {name: document["files"][name] for name in (*FILES, *optional)}
        expected = {
            name: (int(entry["size_bytes"]), str(entry["sha256"])) for name, entry in files.items()
        }
    except OSError as error:
        return f"{MANIFEST} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    for name in (*names, *optional):
        size_bytes, digest = expected[name]
        try:
            found_bytes = (path / name).stat().st_size
            if found_bytes < size_bytes:
                return f"{name} is cut off ({found_bytes:,} of {size_bytes:,} bytes)"
            if found_bytes > size_bytes or _fingerprint(path / name)[1] != digest:
                return f"{name} is damaged (its checksum is wrong)"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def weights_sha256(weights: Flat, table: ParameterTable) -> str:
    """Return the hash of all tensors in table order, names included, alignment gaps left out."""
    digest = hashlib.sha256()
    for name, view in table.views(weights).items():
        digest.update(name.encode() + b"\0")
        digest.update(view.tobytes())
    return digest.hexdigest()


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _gpt2_config(config: ModelConfig, end_of_text: int | None) -> dict[str, Any]:
    kind: dict[str, Any] = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    if config.attention == "crystalline":
        # Not GPT-2: programs that knew no λ would pass over it and compute something else.
        kind = {
            "architectures": ["CrystallineGPT2LMHeadModel"],
            "model_type": CRYSTALLINE_TYPE,
            "attention": "crystalline",
        }
    return {
        **kind,
        "vocab_size": config.vocab_size,
        "n_positions": config.seq_len,
        "n_ctx": config.seq_len,
        "n_embd": config.embed_dim,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
    }


def _end_of_text_id(path: Path) -> int | None:
    """Return the number of the document separator in a tokenizer.json, if it has one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        for token in document.get("added_tokens") or []:
            if token["content"] == END_OF_TEXT:
                return int(token["id"])
        vocabulary = (document.get("model") or {}).get("vocab")
        found = vocabulary.get(END_OF_TEXT) if isinstance(vocabulary, dict) else None
        return None if found is None else int(found)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path} is not a tokenizer file", advice="Prepare the data again."
        ) from None


def _write_tensors(path: Path, views: Mapping[str, Flat], metadata: dict[str, str]) -> None:
    """Write a safetensors file.  Raises `OSError`."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(views), path, metadata=metadata)
    except SafetensorError as error:  # carries the system's error only as text
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from None


def _read_flat(path: Path, table: ParameterTable, prefix: str) -> Flat:
    """Return the tensors whose names begin with `prefix` as one flat buffer; gaps are 0."""
    from safetensors import SafetensorError, safe_open

    flat = np.zeros(table.size, np.float32)
    views = table.views(flat)
    missing = set(views)
    head: npt.NDArray[Any] | None = None
    try:
        with safe_open(path, framework="numpy") as file:
            for stored in file.keys():  # noqa: SIM118 - not a mapping
                if not stored.startswith(prefix):
                    continue
                name = stored[len(prefix) :]
                if _MASK.fullmatch(name.removeprefix(PREFIX)):
                    continue
                dtype = file.get_slice(stored).get_dtype()
                if dtype not in ("F16", "F32", "F64"):
                    raise CheckpointError(
                        f"the tensor '{stored}' in {path} is of type {dtype}",
                        advice="Save the model as float32.",
                    )
                tensor = file.get_tensor(stored)
                if name == "lm_head.weight":
                    head = tensor
                    continue
                view = views.get(name)
                if view is None:
                    name = PREFIX + name
                    view = views.get(name)
                if view is None:
                    raise CheckpointError(
                        f"{path} holds an unknown tensor '{stored}'",
                        advice=_other_checkpoint(path.parent),
                    )
                if tensor.shape != view.shape:
                    raise CheckpointError(
                        f"the tensor '{stored}' in {path} has shape {tensor.shape}, "
                        f"{CONFIG} asks for {view.shape}",
                        advice=_other_checkpoint(path.parent),
                    )
                view[...] = tensor
                missing.discard(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error})", advice=_other_checkpoint(path.parent)
        ) from None
    if missing:
        raise CheckpointError(
            f"{path} has no tensor '{prefix}{min(missing)}'", advice=_other_checkpoint(path.parent)
        )
    if head is not None and not np.array_equal(head, views[PREFIX + "wte.weight"]):
        raise CheckpointError(
            f"{path} has an output head of its own", advice="Use a model whose head is tied."
        )
    return flat


def _read_config(path: Path) -> ModelConfig:
    """Return the shape that config.json describes, if it is one that we compute."""
    document = _read_json(path, CONFIG)
    file = path / CONFIG
    crystalline = document.get("model_type") == CRYSTALLINE_TYPE
    for key, accepted in (
        ("model_type", ("gpt2", CRYSTALLINE_TYPE)),
        ("attention", ("crystalline",) if crystalline else ("standard",)),
        ("activation_function", _GELU_TANH),
        ("layer_norm_epsilon", (LAYER_NORM_EPSILON,)),
        ("scale_attn_weights", (True,)),
        ("scale_attn_by_inverse_layer_idx", (False,)),
        ("add_cross_attention", (False,)),
        ("n_inner", (None, 4 * _number(document, "n_embd", file))),
    ):
        value = document.get(key, accepted[0])
        if value not in accepted:
            raise CheckpointError(
                f"{file} has {key} = {value}, which is not supported",
                advice=f"It must be {' or '.join(map(str, accepted))}.",
            )
    dropout = document.get("resid_pdrop", 0.0)
    try:
        return ModelConfig(
            vocab_size=_number(document, "vocab_size", file),
            seq_len=_number(document, "n_positions", file),
            num_layers=_number(document, "n_layer", file),
            num_heads=_number(document, "n_head", file),
            embed_dim=_number(document, "n_embd", file),
            dropout=float(dropout),
            attention="crystalline" if crystalline else "standard",
        )
    except (UsageError, TypeError, ValueError) as error:
        problem = error.message if isinstance(error, UsageError) else f"resid_pdrop is {dropout!r}"
        raise CheckpointError(
            f"{file} describes an impossible model: {problem}", advice=_other_checkpoint(path)
        ) from None


def _number(document: dict[str, Any], key: str, file: Path) -> int:
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        problem = f"has {key} = {value!r}" if key in document else f"has no '{key}'"
        raise CheckpointError(
            f"{file} {problem}, a whole number is needed", advice=_other_checkpoint(file.parent)
        )
    return value


def _crystal_of(path: Path) -> Path | None:
    """Return the crystal.json of a checkpoint or a copied model folder, if it has one."""
    return path / CRYSTAL if (path / CRYSTAL).is_file() else None


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        document = json.loads((path / name).read_text(encoding="utf-8"))
    except OSError as error:
        problem = error.strerror or str(error)
    except ValueError:
        problem = "it is not valid JSON"
    else:
        if isinstance(document, dict):
            return document
        problem = "it is not a JSON object"
    raise CheckpointError(
        f"{path / name} cannot be read ({problem})", advice=_other_checkpoint(path)
    )


def _require_directory(path: Path) -> None:
    if not path.exists():
        raise CheckpointError(
            f"there is no run or checkpoint at {path}", advice="Check the path for a typing error."
        )
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is a file",
            advice="Give the run directory, or the directory of one checkpoint.",
        )


def _verify_or_raise(path: Path, names: Collection[str]) -> None:
    problem = verify(path, names)
    if problem:
        raise CheckpointError(
            f"the checkpoint {path} is damaged: {problem}", advice=_other_checkpoint(path)
        )


def _other_checkpoint(damaged: Path) -> str:
    """Return the advice that names the newest undamaged checkpoint beside a damaged one."""
    here = damaged.resolve()
    if here.parent.name != CHECKPOINTS:
        return "Get the folder again from where it came."
    shown = damaged.parent if damaged.parent.name == CHECKPOINTS else here.parent
    others = [entry for entry in list_checkpoints(here.parent.parent) if entry.name != here.name]
    for entry in sorted(others, key=_saved_at, reverse=True):
        if verify(entry) is None:
            return (
                f"The checkpoint of step {_step(entry):,} is undamaged: "
                f"go on with --resume {shown / entry.name}."
            )
    return "The run has no undamaged checkpoint; start a new one."


def _latest(run_dir: Path, checkpoints: list[Path]) -> Path:
    """Return where `latest` points; a save cut off just before that is found by its time."""
    return pointer(run_dir, LATEST) or max(checkpoints, key=_saved_at)


def _saved_at(checkpoint: Path) -> tuple[float, int]:
    """Return the time of saving, by which a run that went back sorts rightly, and the step."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        return float(manifest["saved_at"]), _step(checkpoint)
    except (OSError, ValueError, KeyError, TypeError):  # damaged: the oldest of all
        return 0.0, _step(checkpoint)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _replace_directory(source: Path, target: Path) -> None:
    """Rename `source` to `target`; an old `target` steps aside and is then removed."""
    if not target.exists():
        source.rename(target)
        return
    aside = source.with_name(source.name.removesuffix(".tmp") + _ASIDE)
    target.rename(aside)
    try:
        source.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _fingerprint(path: Path) -> tuple[int, str]:
    """Return (size in bytes, sha256) of a file."""
    digest = hashlib.sha256()
    size_bytes = 0
    block = bytearray(_HASH_BYTES)
    view = memoryview(block)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(view[:count])
            size_bytes += count
    return size_bytes, digest.hexdigest()


def _raise_save_error(run_dir: Path, step: int, target: Path, error: OSError) -> NoReturn:
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "Free some space." if full else "Check the directory."
    kept = [entry for entry in list_checkpoints(run_dir) if entry != target]
    if kept:
        advice += f" The checkpoint of step {_step(max(kept, key=_saved_at)):,} is intact."
    raise SaveError(
        f"the checkpoint of step {step:,} cannot be written to {target} ({reason})", advice=advice
    ) from error
