"""Forward and backward of the GPT-2 shaped transformer, for one process and one lane.

A `Gpt2` binds a configuration to three buffers that the caller owns: the flat weights, their
packed panels, and a workspace for activations.  `compute` runs whole sequences forward and
backward without the GIL and stores or adds the gradients of every tensor in one flat buffer.

What is kept from forward to backward is listed once, in `_activations`; every matrix product
works on all rows of a chunk of sequences.  Letters as in `config.py`; R = rows of a chunk.
Which sequences form a chunk depends on the configuration only, so the bits do too.
"""

import numpy as np

from crystalline._kernels.memory import aligned_empty
from crystalline.model.config import LAYER_NORM_EPSILON
from crystalline.model.params import parameter_table

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset

from crystalline._kernels cimport attention
from crystalline._kernels.attention cimport AttentionDropout
from crystalline._kernels.isa cimport Primitives, primitives
from crystalline._kernels.matmul cimport (
    multiply, multiply_ta, pack, pack_rows, pack_t, packed_floats,
)
from crystalline._kernels.random cimport drop_threshold, mix

cdef float EPSILON = LAYER_NORM_EPSILON

cdef enum:
    CHUNK_ROWS = 512               # rows that one chunk of sequences aims at
    LOGITS_FLOATS = 8 * 1024 * 1024  # the head's block of logits: 32 MiB

cdef enum:  # where dropout acts, besides the attention probabilities
    EMBEDDING
    ATTENTION
    ATTENTION_OUT
    MLP_OUT

_LAYER_NAMES = (
    "attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight",
    "ln_1.weight", "ln_1.bias", "attn.c_attn.bias", "attn.c_proj.bias",
    "ln_2.weight", "ln_2.bias", "mlp.c_fc.bias", "mlp.c_proj.bias",
)

# Activation buffers, in floats, for R rows: kept per layer (for the backward pass) or once.
# The head's logits block and the attention scratch stand at the end of the workspace.
cdef struct Activations:
    # per layer, at x + l * layer_floats
    float* x          # [R, C] input of the layer
    float* ln1        # [R, C]
    float* ln1_mean   # [R]
    float* ln1_rstd   # [R]
    float* qkv        # [R, 3C]
    float* lse        # [B, H, t]
    float* att        # [R, C]
    float* mid        # [R, C] after attention
    float* ln2        # [R, C]
    float* ln2_mean   # [R]
    float* ln2_rstd   # [R]
    float* fc         # [R, 4C]
    float* gelu       # [R, 4C]

cdef struct Shared:
    float* last       # [R, C] output of the last layer
    float* ln_f       # [R, C]
    float* ln_f_mean  # [R]
    float* ln_f_rstd  # [R]
    float* dx         # [R, C] gradient of the residual stream
    float* dtmp       # [R, C]
    float* dqkv       # [R, 3C]
    float* dfc        # [R, 4C]
    float* dy_packed  # [R, 4C] in panels
    float* logits     # [head rows, V]
    float* scratch    # attention


cdef inline int64_t up(int64_t n) noexcept nogil:
    return (n + 15) // 16 * 16


cdef inline int64_t chunk_sequences(int64_t t) noexcept nogil:
    return max(<int64_t>1, CHUNK_ROWS // t)


cdef inline int64_t most_head_rows(int64_t V) noexcept nogil:
    return max(<int64_t>32, LOGITS_FLOATS // V)


cdef inline int64_t head_rows(int64_t rows, int64_t V) noexcept nogil:
    # Rows of logits that exist at once: blocks of equal size within the buffer.
    cdef int64_t most = most_head_rows(V)
    cdef int64_t blocks = (rows + most - 1) // most
    return (rows + blocks - 1) // blocks


cdef int64_t layer_floats(const Sizes* z, int64_t R) noexcept nogil:
    return 5 * up(R * z.C) + up(R * 3 * z.C) + 2 * up(R * 4 * z.C) + 4 * up(R) + up(R * z.H)


cdef Activations layer_activations(float* base, const Sizes* z, int64_t R,
                                   int64_t layer) noexcept nogil:
    cdef Activations a
    cdef int64_t rc = up(R * z.C), r = up(R)
    a.x = base + layer * layer_floats(z, R)
    a.ln1 = a.x + rc
    a.ln1_mean = a.ln1 + rc
    a.ln1_rstd = a.ln1_mean + r
    a.qkv = a.ln1_rstd + r
    a.lse = a.qkv + up(R * 3 * z.C)
    a.att = a.lse + up(R * z.H)
    a.mid = a.att + rc
    a.ln2 = a.mid + rc
    a.ln2_mean = a.ln2 + rc
    a.ln2_rstd = a.ln2_mean + r
    a.fc = a.ln2_rstd + r
    a.gelu = a.fc + up(R * 4 * z.C)
    return a


cdef Shared shared_activations(float* base, const Sizes* z, int64_t R) noexcept nogil:
    cdef Shared s
    cdef int64_t rc = up(R * z.C), r = up(R)
    s.last = base + z.L * layer_floats(z, R)  # the x of a layer beyond the last
    s.ln_f = s.last + rc
    s.ln_f_mean = s.ln_f + rc
    s.ln_f_rstd = s.ln_f_mean + r
    s.dx = s.ln_f_rstd + r
    s.dtmp = s.dx + rc
    s.dqkv = s.dtmp + rc
    s.dfc = s.dqkv + up(R * 3 * z.C)
    s.dy_packed = s.dfc + up(R * 4 * z.C)
    s.logits = s.dy_packed + packed_floats(R, 4 * z.C)
    s.scratch = s.logits + up(min(R, most_head_rows(z.V)) * z.V)
    return s


cdef Sizes sizes_of(config):
    cdef Sizes z
    z.V, z.T, z.L, z.H, z.C = (
        config.vocab_size, config.seq_len, config.num_layers, config.num_heads, config.embed_dim
    )
    z.D = z.C // z.H
    return z


cdef class Gpt2:
    """One model over caller-owned buffers.

    Parameters
    ----------
    config : ModelConfig
    weights : float32 [parameter_table(config).size]
    packed : float32 [packed_size(config)], filled by `pack`
    workspace : uint8 [workspace_size(config)], start aligned to 64 bytes

    >>> import numpy as np
    >>> from crystalline.model.config import ModelConfig
    >>> from crystalline.model.params import initialize, parameter_table
    >>> config = ModelConfig(vocab_size=11, seq_len=8, num_layers=1, num_heads=2, embed_dim=16)
    >>> size = parameter_table(config).size
    >>> weights, grads = np.zeros(size, np.float32), np.zeros(size, np.float32)
    >>> initialize(config, weights, seed=1)
    >>> model = Gpt2.allocate(config, weights)
    >>> tokens = np.arange(9, dtype=np.int32).reshape(1, 9)
    >>> round(model.compute(tokens, grads, scale=1 / 8) / 8, 1)  # log(11) at the start
    2.4
    """

    def __init__(self, config, float[::1] weights, float[::1] packed,
                 unsigned char[::1] workspace):
        table = parameter_table(config)
        for name, have, need in (
            ("weights", weights.shape[0], table.size),
            ("packed", packed.shape[0], Gpt2.packed_size(config)),
            ("workspace", workspace.shape[0], Gpt2.workspace_size(config)),
        ):
            if have != need:
                raise ValueError(f"{name} has {have} elements, the model needs {need}")
        if <size_t>&workspace[0] % 64:
            raise ValueError("the workspace must start at a multiple of 64 bytes")
        self.config = config
        self.z = sizes_of(config)
        self._weights, self._packed, self._workspace = weights, packed, workspace
        self._threshold = drop_threshold(config.dropout)
        self._keep_scale = <float>(1.0 / (1.0 - config.dropout))
        self._size = table.size
        self._wte = table["transformer.wte.weight"].offset
        self._wpe = table["transformer.wpe.weight"].offset
        self._ln_f = table["transformer.ln_f.weight"].offset
        self._vectors = min(p.offset for p in table.parameters if len(p.shape) == 1)
        self._offsets = np.array(
            [[table[f"transformer.h.{layer}.{name}"].offset for name in _LAYER_NAMES]
             for layer in range(config.num_layers)], dtype=np.int64)
        self._place_packs(table)
        kinds = {"transformer.wte.weight": (WTE, 0), "transformer.wpe.weight": (WPE, 0)}
        for layer in range(config.num_layers):
            for matrix in range(MATRICES):
                kinds[f"transformer.h.{layer}.{_LAYER_NAMES[matrix]}"] = (layer, matrix)
        self._segments = np.array(
            [(*(kinds[table.parameters[s.tensor].name] if s.tensor >= 0 else (VECTORS, 0)),
              s.row, s.rows, s.start, s.stop) for s in table.segments()], dtype=np.int64)

    def _place_packs(self, table):
        cdef int64_t offset = 0, C = self.z.C, V = self.z.V
        self._packs = np.zeros((self.z.L, MATRICES, 2), dtype=np.int64)
        for layer in range(self.z.L):
            for matrix in range(MATRICES):
                K, N = table[f"transformer.h.{layer}.{_LAYER_NAMES[matrix]}"].shape
                self._packs[layer, matrix, 0] = offset
                offset += packed_floats(K, N)
                self._packs[layer, matrix, 1] = offset
                offset += packed_floats(N, K)
        self._wte_head = offset
        self._wte_back = offset + packed_floats(C, V)

    @staticmethod
    def packed_size(config) -> int:
        """Return the floats of the packed weights: every matrix but the positions, both ways."""
        cdef Sizes z = sizes_of(config)
        cdef int64_t C = z.C
        layer = (packed_floats(C, 3 * C) + packed_floats(3 * C, C) + 2 * packed_floats(C, C)
                 + 2 * packed_floats(C, 4 * C) + 2 * packed_floats(4 * C, C))
        return z.L * layer + packed_floats(C, z.V) + packed_floats(z.V, C)

    @staticmethod
    def workspace_size(config) -> int:
        """Return the bytes of activations and scratch that `compute` needs, whatever the batch."""
        cdef Sizes z = sizes_of(config)
        cdef int64_t R = max(<int64_t>CHUNK_ROWS, z.T)
        cdef Shared s = shared_activations(NULL, &z, R)
        return <int64_t><size_t>(s.scratch + up(attention.scratch_floats(z.T, z.D)))

    @staticmethod
    def allocate(config, float[::1] weights) -> Gpt2:
        """Return a model over `weights` with buffers of its own, packed and ready."""
        model = Gpt2(config, weights, aligned_empty((Gpt2.packed_size(config),)),
                     aligned_empty((Gpt2.workspace_size(config),), np.uint8))
        model.pack()
        return model

    @property
    def segment_count(self) -> int:
        """Number of segments of the flat buffer."""
        return self._segments.shape[0]

    def pack(self) -> None:
        """Refresh the packed panels of every matrix from the weights."""
        for index in range(self.segment_count):
            self.pack_segment_nogil(index)

    def pack_segment(self, int64_t index) -> None:
        """Refresh the packed panels of one segment (see `params.Segment`)."""
        if not 0 <= index < self._segments.shape[0]:
            raise IndexError(f"segment {index} of {self._segments.shape[0]}")
        with nogil:
            self.pack_segment_nogil(index)

    cdef void pack_segment_nogil(self, int64_t index) noexcept nogil:
        cdef int64_t* s = &self._segments[index, 0]
        cdef int64_t kind = s[0], matrix = s[1], row = s[2], rows = s[3]
        cdef int64_t C = self.z.C, K, N
        cdef float* w = &self._weights[s[4]]
        cdef float* packed
        cdef float* packed_t
        if kind == VECTORS or kind == WPE:
            return
        if kind == WTE:  # rows are the columns of the head's product
            K, N = self.z.V, C
            packed = &self._packed[self._wte_back]
            packed_t = &self._packed[self._wte_head]
        else:
            K = 4 * C if matrix == W_PROJ else C
            N = 3 * C if matrix == W_QKV else 4 * C if matrix == W_FC else C
            packed = &self._packed[self._packs[kind, matrix, 0]]
            packed_t = &self._packed[self._packs[kind, matrix, 1]]
        pack_rows(K, N, row, rows, w, N, packed, NULL)
        pack_t(N, rows, w, N, packed_t + row * N)

    def compute(self, const int32_t[:, ::1] tokens, float[::1] grads, *, double scale,
                bint accumulate=False, uint64_t seed=0, uint64_t step=0,
                uint64_t first_sequence=0) -> float:
        """Run tokens [n, t + 1] forward and backward.

        The gradients of `scale` times the summed loss are stored in grads [size] (OUT), or added
        to them (INOUT) with `accumulate`.  Dropout is a function of (seed, step, sequence
        number, place); `first_sequence` is the number of the first of these n sequences.
        Returns the sum of -ln p over the n * t targets, in nats.
        """
        cdef int64_t n = tokens.shape[0], t = tokens.shape[1] - 1
        self._check_tokens(tokens, t)
        if grads.shape[0] != self._size:
            raise ValueError(f"grads has {grads.shape[0]} floats, the model needs {self._size}")
        cdef int32_t[::1] ids = np.ascontiguousarray(tokens[:, :t]).reshape(-1)
        cdef int32_t[::1] targets = np.ascontiguousarray(tokens[:, 1:]).reshape(-1)
        cdef double loss = 0.0
        cdef uint64_t key = mix(mix(0, seed), step)
        cdef int64_t start = 0, count
        with nogil:
            if not accumulate:
                memset(&grads[self._vectors], 0, (self._size - self._vectors) * sizeof(float))
                memset(&grads[self._wpe], 0, self.z.T * self.z.C * sizeof(float))
            while start < n:
                count = min(n - start, chunk_sequences(t))
                self.forward(&ids[start * t], count, t, key, first_sequence + start,
                             self._threshold > 0)
                loss += self.head(&targets[start * t], count * t, <float>scale, &grads[0],
                                  accumulate)
                self.backward(&ids[start * t], count, t, &grads[0], accumulate, key,
                              first_sequence + start)
                accumulate = True
                start += count
        return loss

    def evaluate(self, const int32_t[:, ::1] tokens) -> float:
        """Return the sum of -ln p over the n * t targets of tokens [n, t + 1], in nats."""
        cdef int64_t n = tokens.shape[0], t = tokens.shape[1] - 1
        self._check_tokens(tokens, t)
        cdef int32_t[::1] ids = np.ascontiguousarray(tokens[:, :t]).reshape(-1)
        cdef int32_t[::1] targets = np.ascontiguousarray(tokens[:, 1:]).reshape(-1)
        cdef double loss = 0.0
        cdef int64_t start = 0, count
        with nogil:
            while start < n:
                count = min(n - start, chunk_sequences(t))
                self.forward(&ids[start * t], count, t, 0, 0, False)
                loss += self.head(&targets[start * t], count * t, 0.0, NULL, False)
                start += count
        return loss

    def logits(self, const int32_t[:, ::1] tokens):
        """Return the logits [n, t, V] of tokens [n, t]."""
        cdef int64_t n = tokens.shape[0], t = tokens.shape[1], R
        self._check_tokens(tokens, t)
        cdef int32_t[::1] ids = np.ascontiguousarray(tokens).reshape(-1)
        out = np.empty((n, t, self.z.V), dtype=np.float32)
        cdef float[:, :, ::1] view = out
        cdef int64_t start = 0, count
        cdef Shared s
        with nogil:
            while start < n:
                count = min(n - start, chunk_sequences(t))
                R = count * t
                self.forward(&ids[start * t], count, t, 0, 0, False)
                s = shared_activations(<float*>&self._workspace[0], &self.z, R)
                multiply(R, self.z.V, self.z.C, s.ln_f, self.z.C, &self._packed[self._wte_head],
                         &view[start, 0, 0], self.z.V, NULL, NULL, False)
                start += count
        return out

    def token_losses(self, const int32_t[::1] tokens):
        """Return -ln p of tokens[1:] given those before, float64 [n - 1]; tokens is int32 [n]."""
        cdef int64_t t = tokens.shape[0] - 1, C = self.z.C, V = self.z.V, row = 0, n, i
        self._check_tokens(np.asarray(tokens).reshape(1, -1), t)
        out = np.empty(t, dtype=np.float64)
        cdef double[::1] losses = out
        cdef Shared s = shared_activations(<float*>&self._workspace[0], &self.z, t)
        with nogil:
            self.forward(&tokens[0], 1, t, 0, 0, False)
            while row < t:
                n = min(head_rows(t, V), t - row)
                multiply(n, V, C, s.ln_f + row * C, C, &self._packed[self._wte_head], s.logits, V,
                         NULL, NULL, False)
                for i in range(n):
                    losses[row + i] = primitives().cross_entropy(1, V, s.logits + i * V, V,
                                                                 &tokens[row + i + 1], 0.0, False)
                row += n
        return out

    def _check_tokens(self, const int32_t[:, ::1] tokens, int64_t t):
        if tokens.shape[0] < 1 or not 1 <= t <= self.z.T:
            raise ValueError(
                f"tokens is [{tokens.shape[0]}, {tokens.shape[1]}]: at least one sequence of "
                f"1 to {self.z.T} positions is needed")
        cdef int32_t low = tokens[0, 0], high = low
        cdef int64_t i, j
        for i in range(tokens.shape[0]):
            for j in range(tokens.shape[1]):
                low = min(low, tokens[i, j])
                high = max(high, tokens[i, j])
        if low < 0 or high >= self.z.V:
            bad = low if low < 0 else high
            raise ValueError(f"token {bad} is outside the vocabulary of {self.z.V}")

    cdef void forward(self, const int32_t* ids, int64_t n, int64_t t, uint64_t key,
                      uint64_t first_sequence, bint dropping) noexcept nogil:
        cdef const Primitives* p = primitives()
        cdef int64_t R = n * t, C = self.z.C, H = self.z.H, D = self.z.D, layer
        cdef float* base = <float*>&self._workspace[0]
        cdef const float* w = &self._weights[0]
        cdef const float* packed = &self._packed[0]
        cdef const int64_t* o
        cdef Activations a
        cdef Shared s = shared_activations(base, &self.z, R)
        cdef float* nxt
        cdef AttentionDropout drop
        a = layer_activations(base, &self.z, R, 0)
        p.embed(R, t, C, ids, w + self._wte, w + self._wpe, a.x)
        if dropping:
            self.drop(R, t, a.x, a.x, key, EMBEDDING, 0, first_sequence)
        for layer in range(self.z.L):
            o = &self._offsets[layer, 0]
            a = layer_activations(base, &self.z, R, layer)
            nxt = base + (layer + 1) * layer_floats(&self.z, R)  # x of the next layer, or last
            p.layernorm(R, C, a.x, w + o[LN1_GAMMA], w + o[LN1_BETA], EPSILON, a.ln1, a.ln1_mean,
                        a.ln1_rstd)
            multiply(R, 3 * C, C, a.ln1, C, packed + self._packs[layer, W_QKV, 0], a.qkv, 3 * C,
                     w + o[B_QKV], NULL, False)
            drop = self.attention_dropout(key, layer, first_sequence, dropping)
            attention.forward(n, t, H, D, a.qkv, &drop, a.att, a.lse, s.scratch)
            if dropping:
                multiply(R, C, C, a.att, C, packed + self._packs[layer, W_OUT, 0], a.mid, C,
                         w + o[B_OUT], NULL, False)
                self.drop(R, t, a.mid, a.mid, key, ATTENTION_OUT, layer, first_sequence)
                p.add(R * C, a.mid, a.x, a.mid)
            else:
                multiply(R, C, C, a.att, C, packed + self._packs[layer, W_OUT, 0], a.mid, C,
                         w + o[B_OUT], a.x, False)
            p.layernorm(R, C, a.mid, w + o[LN2_GAMMA], w + o[LN2_BETA], EPSILON, a.ln2,
                        a.ln2_mean, a.ln2_rstd)
            multiply(R, 4 * C, C, a.ln2, C, packed + self._packs[layer, W_FC, 0], a.fc, 4 * C,
                     w + o[B_FC], NULL, False)
            p.gelu(R * 4 * C, a.fc, a.gelu)
            if dropping:
                multiply(R, C, 4 * C, a.gelu, 4 * C, packed + self._packs[layer, W_PROJ, 0], nxt,
                         C, w + o[B_PROJ], NULL, False)
                self.drop(R, t, nxt, nxt, key, MLP_OUT, layer, first_sequence)
                p.add(R * C, nxt, a.mid, nxt)
            else:
                multiply(R, C, 4 * C, a.gelu, 4 * C, packed + self._packs[layer, W_PROJ, 0], nxt,
                         C, w + o[B_PROJ], a.mid, False)
        p.layernorm(R, C, s.last, w + self._ln_f, w + self.ln_f_beta(), EPSILON, s.ln_f,
                    s.ln_f_mean, s.ln_f_rstd)

    cdef double head(self, const int32_t* targets, int64_t rows, float scale, float* grads,
                     bint accumulate) noexcept nogil:
        # Loss of all rows, block by block; with grads also d(ln_f) into dtmp, and d(wte).
        cdef const Primitives* p = primitives()
        cdef int64_t C = self.z.C, V = self.z.V, block = head_rows(rows, V), row = 0, n
        cdef Shared s = shared_activations(<float*>&self._workspace[0], &self.z, rows)
        cdef double loss = 0.0
        while row < rows:
            n = min(block, rows - row)
            multiply(n, V, C, s.ln_f + row * C, C, &self._packed[self._wte_head], s.logits, V,
                     NULL, NULL, False)
            loss += p.cross_entropy(n, V, s.logits, V, targets + row, scale, grads != NULL)
            if grads != NULL:
                multiply(n, C, V, s.logits, V, &self._packed[self._wte_back], s.dtmp + row * C, C,
                         NULL, NULL, False)
                pack(n, C, s.ln_f + row * C, C, s.dy_packed, NULL)
                multiply_ta(V, C, n, s.logits, V, s.dy_packed, grads + self._wte, C, accumulate)
            accumulate = True
            row += n
        return loss

    cdef void backward(self, const int32_t* ids, int64_t n, int64_t t, float* grads,
                       bint accumulate, uint64_t key, uint64_t first_sequence) noexcept nogil:
        # From d(ln_f) in dtmp down to the embeddings.  Vectors' gradients always add.
        cdef const Primitives* p = primitives()
        cdef int64_t R = n * t, C = self.z.C, H = self.z.H, D = self.z.D, layer
        cdef float* base = <float*>&self._workspace[0]
        cdef const float* w = &self._weights[0]
        cdef const int64_t* o
        cdef Activations a
        cdef Shared s = shared_activations(base, &self.z, R)
        cdef AttentionDropout drop
        cdef bint dropping = self._threshold > 0
        cdef float* dy
        p.layernorm_backward(R, C, s.dtmp, s.last, w + self._ln_f, s.ln_f_mean, s.ln_f_rstd, s.dx,
                             0, grads + self._ln_f, grads + self.ln_f_beta())
        for layer in range(self.z.L - 1, -1, -1):
            o = &self._offsets[layer, 0]
            a = layer_activations(base, &self.z, R, layer)
            # mlp: next = mid + drop(gelu(fc) W_PROJ + b)
            dy = s.dx
            if dropping:
                dy = s.dtmp
                self.drop(R, t, s.dx, dy, key, MLP_OUT, layer, first_sequence)
            self.linear_backward(R, 4 * C, C, a.gelu, dy, W_PROJ, B_PROJ, layer, s.dfc,
                                 s.dy_packed, grads, accumulate)
            p.gelu_backward(R * 4 * C, a.fc, s.dfc, s.dfc)
            self.linear_backward(R, C, 4 * C, a.ln2, s.dfc, W_FC, B_FC, layer, s.dtmp,
                                 s.dy_packed, grads, accumulate)
            p.layernorm_backward(R, C, s.dtmp, a.mid, w + o[LN2_GAMMA], a.ln2_mean, a.ln2_rstd,
                                 s.dx, 1, grads + o[LN2_GAMMA], grads + o[LN2_BETA])
            # attention: mid = x + drop(att W_OUT + b)
            dy = s.dx
            if dropping:
                dy = s.dfc
                self.drop(R, t, s.dx, dy, key, ATTENTION_OUT, layer, first_sequence)
            self.linear_backward(R, C, C, a.att, dy, W_OUT, B_OUT, layer, s.dtmp, s.dy_packed,
                                 grads, accumulate)
            drop = self.attention_dropout(key, layer, first_sequence, dropping)
            attention.backward(n, t, H, D, s.dtmp, a.qkv, a.att, a.lse, &drop, s.dqkv, s.scratch)
            self.linear_backward(R, C, 3 * C, a.ln1, s.dqkv, W_QKV, B_QKV, layer, s.dtmp,
                                 s.dy_packed, grads, accumulate)
            p.layernorm_backward(R, C, s.dtmp, a.x, w + o[LN1_GAMMA], a.ln1_mean, a.ln1_rstd,
                                 s.dx, 1, grads + o[LN1_GAMMA], grads + o[LN1_BETA])
        if dropping:
            self.drop(R, t, s.dx, s.dx, key, EMBEDDING, 0, first_sequence)
        p.embed_backward(R, t, C, ids, s.dx, grads + self._wte, grads + self._wpe)

    cdef const float* qkv(self, int64_t layer, int64_t rows) noexcept nogil:
        return layer_activations(<float*>&self._workspace[0], &self.z, rows, layer).qkv

    cdef const float* last_hidden(self, int64_t rows) noexcept nogil:
        cdef Shared s = shared_activations(<float*>&self._workspace[0], &self.z, rows)
        return s.ln_f + (rows - 1) * self.z.C

    cdef int64_t ln_f_beta(self) noexcept nogil:
        return self._ln_f + up(self.z.C)

    cdef void linear_backward(self, int64_t R, int64_t K, int64_t N, const float* x__rk,
                              const float* dy__rn, int matrix, int bias, int64_t layer,
                              float* dx__rk, float* dy_packed, float* grads,
                              bint accumulate) noexcept nogil:
        # y = x W + b:  db += column sums of dy;  dW (+)= x^T dy;  dx = dy W^T
        cdef const int64_t* o = &self._offsets[layer, 0]
        pack(R, N, dy__rn, N, dy_packed, grads + o[bias])
        multiply_ta(K, N, R, x__rk, K, dy_packed, grads + o[matrix], N, accumulate)
        multiply(R, K, N, dy__rn, N, &self._packed[self._packs[layer, matrix, 1]], dx__rk, K,
                 NULL, NULL, False)

    cdef AttentionDropout attention_dropout(self, uint64_t key, int64_t layer,
                                            uint64_t first_sequence, bint dropping) noexcept nogil:
        cdef AttentionDropout d
        d.key = mix(key, 4 * layer + ATTENTION)
        d.first_sequence = first_sequence
        d.threshold = self._threshold if dropping else 0
        d.scale = self._keep_scale
        return d

    cdef void drop(self, int64_t R, int64_t t, const float* x, float* out, uint64_t key, int site,
                   int64_t layer, uint64_t first_sequence) noexcept nogil:
        # Element (sequence, position, channel) has its own number, whoever computes it.
        primitives().dropout(R * self.z.C, x, out, mix(key, 4 * layer + site),
                             first_sequence * t * self.z.C, self._threshold, self._keep_scale)
