"""Token by token: the transformer with a cache of keys and values, for generation.

A slot holds one sequence; slots that get one token each advance together through one product per
matrix, so beams and several texts cost little more than one.  Learned positions end at
`config.seq_len`: what happens to longer texts is the caller's affair.
"""

import numpy as np

from crystalline._kernels.memory import aligned_empty
from crystalline.model.config import LAYER_NORM_EPSILON

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy

from crystalline._kernels cimport attention
from crystalline._kernels.attention cimport CRYSTAL_FEATURES, Crystal
from crystalline._kernels.formats cimport float32
from crystalline._kernels.isa cimport CL_STORE, NumberFormat, Primitives, primitives
from crystalline._kernels.matmul cimport multiply
from crystalline.model.gpt2 cimport (
    B_FC, B_OUT, B_PROJ, B_QKV, LN1_BETA, LN1_GAMMA, LN2_BETA, LN2_GAMMA, W_FC, W_OUT, W_PROJ,
    W_QKV, Gpt2,
)

cdef float EPSILON = LAYER_NORM_EPSILON


cdef class Decoder:
    """Keys and values of `slots` sequences over one model.

    Parameters
    ----------
    config : ModelConfig
    weights : float32 [parameter_table(config).size]
    slots : sequences held at once
    chunk : most tokens of one call of `extend`; 0 is a full context in every slot
    features : float32 [V, 16], of crystalline attention (see `Gpt2`)

    >>> import numpy as np
    >>> from crystalline.model.config import ModelConfig
    >>> from crystalline.model.params import initialize, parameter_table
    >>> config = ModelConfig(vocab_size=11, seq_len=8, num_layers=1, num_heads=2, embed_dim=16)
    >>> weights = np.zeros(parameter_table(config).size, np.float32)
    >>> initialize(config, weights, seed=1)
    >>> decoder = Decoder(config, weights)
    >>> decoder.extend([0], [[3, 1, 4]]).shape, decoder.extend([0], [[1]]).shape, decoder.length()
    ((1, 11), (1, 11), 4)
    """

    cdef readonly object config
    cdef readonly int slots
    cdef readonly int64_t chunk
    cdef Gpt2 _model
    cdef int64_t[::1] _length           # [slots]
    cdef float[:, :, :, ::1] _keys      # [L, slots, T, C]
    cdef float[:, :, :, ::1] _values
    cdef float[:, :, ::1] _phi          # [slots, T, F], features; [slots, 0, F] without
    cdef float[:, ::1] _similar         # [slots, T], of the newest token and the cached ones
    cdef float[:, ::1] _x, _ln, _qkv, _att, _fc  # [slots, ...]
    cdef float[::1] _mean, _rstd, _scratch

    def __init__(self, config, float[::1] weights, *, int slots=1, int64_t chunk=0,
                 const float[:, ::1] features=None):
        if slots < 1:
            raise ValueError(f"slots is {slots}: at least one sequence is needed")
        L, T, C = config.num_layers, config.seq_len, config.embed_dim
        self.chunk = chunk or slots * T
        self.config = config
        self.slots = slots
        self._model = Gpt2.allocate(config, weights, features=features)
        self._length = np.zeros(slots, dtype=np.int64)
        self._keys = np.zeros((L, slots, T, C), dtype=np.float32)
        self._values = np.zeros((L, slots, T, C), dtype=np.float32)
        described = T if features is not None else 0
        self._phi = np.zeros((slots, described, CRYSTAL_FEATURES), dtype=np.float32)
        self._similar = np.zeros((slots, described), dtype=np.float32)
        self._x, self._ln, self._att = (aligned_empty((slots, C)) for _ in range(3))
        self._qkv, self._fc = aligned_empty((slots, 3 * C)), aligned_empty((slots, 4 * C))
        self._mean, self._rstd = aligned_empty((slots,)), aligned_empty((slots,))
        self._scratch = aligned_empty((T,))

    def length(self, int slot=0) -> int:
        """Return the number of tokens in a slot's cache."""
        self._check_slot(slot)
        return self._length[slot]

    def truncate(self, int slot, int64_t length) -> None:
        """Keep the first `length` tokens of a slot; 0 empties it."""
        self._check_slot(slot)
        if not 0 <= length <= self._length[slot]:
            raise ValueError(f"slot {slot} holds {self._length[slot]} tokens, not {length}")
        self._length[slot] = length

    def extend(self, slots, tokens):
        """Append tokens[i] (one or more) to slots[i]; return the logits after each last one.

        slots : distinct; tokens : a sequence of ids for each.  Returns float32 [len(slots), V].
        Raises ValueError, before anything is read, for ids outside the vocabulary, and beyond
        `config.seq_len` tokens in a slot or `chunk` in all.

        An empty slot reads its tokens in one pass, any other one by one, beside the others.
        """
        order = [int(slot) for slot in slots]
        texts = [np.ascontiguousarray(ids, dtype=np.int32) for ids in tokens]
        self._check_extension(order, texts)
        logits = np.empty((len(order), self._model.z.V), dtype=np.float32)
        growing = []
        for i, slot in enumerate(order):
            if self._length[slot] == 0:
                self._prefill(slot, texts[i], logits[i])
            else:
                growing.append(i)
        for at in range(max((len(texts[i]) for i in growing), default=0)):
            turn = [i for i in growing if at < len(texts[i])]
            chosen = np.array([order[i] for i in turn], dtype=np.int64)
            logits[turn] = self._step_slots(chosen, np.array([texts[i][at] for i in turn], "i4"))
        return logits

    def _check_extension(self, order, texts):
        if not order or len(order) != len(texts) or len(set(order)) != len(order):
            raise ValueError(f"{len(texts)} texts for the slots {order}, which must be distinct")
        total = sum(len(ids) for ids in texts)
        if total > self.chunk:
            raise ValueError(f"{total} tokens in one call: the most are {self.chunk}")
        for slot, ids in zip(order, texts):
            self._check_slot(slot)
            if ids.ndim != 1 or not len(ids):
                raise ValueError(f"slot {slot} gets tokens of shape {ids.shape}: a row is needed")
            if self._length[slot] + len(ids) > self._model.z.T:
                raise ValueError(
                    f"slot {slot} holds {self._length[slot]} tokens and gets {len(ids)}: "
                    f"the most are {self._model.z.T}")
            for token in ids[(ids < 0) | (ids >= self._model.z.V)]:
                raise ValueError(
                    f"token {token} is outside the vocabulary of {self._model.z.V}")

    cdef _prefill(self, int slot, const int32_t[::1] ids, float[::1] logits):
        """Read the tokens of an empty slot; write the logits [V] after the last."""
        cdef int64_t t = ids.shape[0], C = self._model.z.C, layer, i
        cdef const float* qkv
        cdef bint crystalline = self._phi.shape[1] > 0
        with nogil:
            self._model.forward(&ids[0], 1, t, 0, 0, False)
            if crystalline:
                for i in range(t):
                    memcpy(&self._phi[slot, i, 0], &self._model._features[ids[i], 0],
                           CRYSTAL_FEATURES * sizeof(float))
            for layer in range(self._model.z.L):
                qkv = self._model.qkv(layer, t)
                for i in range(t):
                    memcpy(&self._keys[layer, slot, i, 0], qkv + (3 * i + 1) * C, C * sizeof(float))
                    memcpy(&self._values[layer, slot, i, 0], qkv + (3 * i + 2) * C,
                           C * sizeof(float))
            multiply(float32(), 1, self._model.z.V, C, self._model.last_hidden(t), C,
                     &self._model._packed[self._model._wte_head], &logits[0], self._model.z.V,
                     NULL, NULL, CL_STORE)
        self._length[slot] = t

    cdef _step_slots(self, const int64_t[::1] slots, const int32_t[::1] ids):
        """Append one token to each of these slots, which hold some; return the logits [n, V]."""
        logits = np.empty((ids.shape[0], self._model.z.V), dtype=np.float32)
        cdef float[:, ::1] out = logits
        with nogil:
            self._step(self._model, ids.shape[0], &slots[0], &ids[0], &out[0, 0])
        return logits

    cdef void _step(self, Gpt2 model, int64_t n, const int64_t* slots, const int32_t* ids,
                    float* logits__nv) noexcept nogil:
        cdef const Primitives* p = primitives()
        cdef const NumberFormat* f = float32()
        cdef int64_t C = model.z.C, H = model.z.H, D = model.z.D, layer, i, at, slot
        cdef const float* w = &model._weights[0]
        cdef const float* packed = &model._packed[0]
        cdef const int64_t* o
        cdef float* x = &self._x[0, 0]
        cdef float* ln = &self._ln[0, 0]
        cdef float* qkv = &self._qkv[0, 0]
        cdef float* att = &self._att[0, 0]
        cdef float* fc = &self._fc[0, 0]
        cdef float* similar
        cdef Crystal crystal
        cdef bint crystalline = self._phi.shape[1] > 0
        for i in range(n):
            slot = slots[i]
            at = self._length[slot]
            if crystalline:
                memcpy(&self._phi[slot, at, 0], &model._features[ids[i], 0],
                       CRYSTAL_FEATURES * sizeof(float))
                p.row_dots(at + 1, CRYSTAL_FEATURES, &self._phi[slot, 0, 0], CRYSTAL_FEATURES,
                           &self._phi[slot, at, 0], 0, &self._similar[slot, 0])
            p.embed(1, 1, C, ids + i, w + model._wte, w + model._wpe + at * C, x + i * C)
        for layer in range(model.z.L):
            o = &model._offsets[layer, 0]
            crystal = model.crystal(ids, layer)
            p.layernorm(n, C, x, w + o[LN1_GAMMA], w + o[LN1_BETA], EPSILON, ln, &self._mean[0],
                        &self._rstd[0])
            multiply(f, n, 3 * C, C, ln, C, packed + model._packs[layer, W_QKV, 0], qkv, 3 * C,
                     w + o[B_QKV], NULL, CL_STORE)
            for i in range(n):
                slot = slots[i]
                at = self._length[slot]
                memcpy(&self._keys[layer, slot, at, 0], qkv + (3 * i + 1) * C, C * sizeof(float))
                memcpy(&self._values[layer, slot, at, 0], qkv + (3 * i + 2) * C, C * sizeof(float))
                similar = &self._similar[slot, 0] if crystalline else NULL
                attention.row(H, D, at + 1, qkv + 3 * i * C, &self._keys[layer, slot, 0, 0],
                              &self._values[layer, slot, 0, 0], C, similar, crystal.lambdas,
                              att + i * C, &self._scratch[0])
            multiply(f, n, C, C, att, C, packed + model._packs[layer, W_OUT, 0], x, C, w + o[B_OUT],
                     x, CL_STORE)
            p.layernorm(n, C, x, w + o[LN2_GAMMA], w + o[LN2_BETA], EPSILON, ln, &self._mean[0],
                        &self._rstd[0])
            multiply(f, n, 4 * C, C, ln, C, packed + model._packs[layer, W_FC, 0], fc, 4 * C,
                     w + o[B_FC], NULL, CL_STORE)
            p.gelu(n * 4 * C, fc, fc)
            multiply(f, n, C, 4 * C, fc, 4 * C, packed + model._packs[layer, W_PROJ, 0], x, C,
                     w + o[B_PROJ], x, CL_STORE)
        p.layernorm(n, C, x, w + model._ln_f, w + model.ln_f_beta(), EPSILON, ln, &self._mean[0],
                    &self._rstd[0])
        multiply(f, n, model.z.V, C, ln, C, packed + model._wte_head, logits__nv, model.z.V, NULL,
                 NULL, CL_STORE)
        for i in range(n):
            self._length[slots[i]] += 1

    def reorder(self, sources) -> None:
        """Make slot i a copy of what slot sources[i] held; slots that stay cost nothing."""
        order = [int(source) for source in sources]
        if len(order) > self.slots:
            raise ValueError(f"{len(order)} sources for {self.slots} slots")
        for source in order:
            self._check_slot(source)
        to = [slot for slot, source in enumerate(order) if slot != source]
        of = [order[slot] for slot in to]
        lengths = np.asarray(self._length)
        longest = int(lengths[of].max(initial=0))
        for cache in (np.asarray(self._keys), np.asarray(self._values)):
            cache[:, to, :longest] = cache[:, of, :longest]
        phi = np.asarray(self._phi)
        phi[to, :longest] = phi[of, :longest]
        lengths[to] = lengths[of]

    def score(self, tokens):
        """Return -ln p of each next token, float64 [n - 1], for 2 to seq_len + 1 tokens [n]."""
        ids = np.ascontiguousarray(tokens, dtype=np.int32)
        if ids.ndim != 1 or not 2 <= len(ids) <= self.config.seq_len + 1:
            raise ValueError(
                f"tokens has shape {ids.shape}: 2 to {self.config.seq_len + 1} tokens are needed")
        return self._model.token_losses(ids)

    def _check_slot(self, int64_t slot):
        if not 0 <= slot < self.slots:
            raise IndexError(f"slot {slot} of {self.slots}")
