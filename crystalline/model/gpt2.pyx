"""Forward and backward of the GPT-2 shaped transformer, for one process and one lane.

A `Gpt2` binds a configuration to three buffers that the caller owns: the flat weights, their
packed panels, and a workspace for activations.  `compute` runs whole sequences forward and
backward without the GIL and stores or adds the gradients of every tensor in one flat buffer.

What is kept from forward to backward is listed once, in `Activations`.  Between two attentions all
work is row by row, so it is done in blocks of the format's pass_rows, which stay in the cache from
one pass to the next; the weight gradients then take all rows of a chunk of sequences at once.
Letters as in `config.py`; R = rows of a chunk.  Chunks and blocks depend on the configuration only,
so the bits do too.

The operands of every product with weights, and in attention, are rounded to the model's precision,
a number format (see `NumberFormat` in `primitives/primitives.h`); sums are float32, and so is the
stream of residuals.  What else is kept is float32 or the format's operand (see `kept.pxd`).
"""

import numpy as np

from crystalline._kernels.memory import aligned_empty
from crystalline.model.config import LAYER_NORM_EPSILON
from crystalline.model.params import parameter_table

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy, memset

from crystalline._kernels cimport attention
from crystalline._kernels.attention cimport CRYSTAL_FEATURES, AttentionDropout, Crystal
from crystalline._kernels.crossentropy cimport (
    expect_epsilon, expect_neighbors, expect_neighbors_of,
)
from crystalline._kernels.formats cimport (
    converts, grouped, operand_size, packed_words, training_format, turned_words, words,
)
from crystalline._kernels.isa cimport (
    CL_ADD, CL_PANEL, CL_STORE, Kept, NumberFormat, Primitives, SoftTargets, StoreMode,
    begin_thread, end_thread, primitives,
)
from crystalline._kernels.kept cimport (
    kept, kept_part, kept_size, multiply_gelu, multiply_gelu_slope, multiply_kept, pack_kept,
    row_operand,
)
from crystalline._kernels.matmul cimport multiply, multiply_ta, pack, pack_rows
from crystalline._kernels.optimizer cimport store_of
from crystalline._kernels.random cimport drop_threshold, mix

cdef float EPSILON = LAYER_NORM_EPSILON

CHUNK_ROWS = CHUNK

cdef enum:
    CHUNK = 512                    # rows that one chunk of sequences aims at
    STRIP_ROWS = 16                # rows that become an operand right after they are computed
    LOGITS_FLOATS = 16 * 1024 * 1024  # the head's block of logits: 64 MiB

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

# Activation buffers for R rows: kept per layer (for the backward pass), or once.  An operand is the
# left-hand side of a product: float32 itself, or what the number format makes of it.
cdef struct Activations:
    float* x          # [R, C] input of the layer
    float* ln1        # [R, C] operand
    float* ln1_mean   # [R]
    float* ln1_rstd   # [R]
    float* qkv        # [R, 3C] kept
    float* lse        # [B, H, t]
    float* att        # [R, C] kept
    float* att_in     # [R, C] operand; att itself where that is one
    float* mid        # [R, C] after attention
    float* ln2        # [R, C] operand
    float* ln2_mean   # [R]
    float* ln2_rstd   # [R]
    float* fc         # [R, 4C] kept
    float* gelu       # [R, 4C] operand

cdef struct Shared:
    float* last       # [R, C] output of the last layer
    float* ln_f       # [R, C]
    float* ln_f_in    # [R, C] operand; ln_f itself where the format does not convert
    float* ln_f_mean  # [R]
    float* ln_f_rstd  # [R]
    float* dx         # [R, C] gradient of the residual stream
    float* datt       # [R, C] gradient of ln_f; after, of att, kept
    float* dqkv       # [R, 3C] kept
    float* dy_packed  # [R, C] in panels
    float* wide_packed  # [R, 4C] in panels
    float* narrow     # [pass_rows, C]
    float* wide       # [pass_rows, 4C] kept; a strip of float32
    float* operand    # [pass_rows, 4C] operand
    float* turned     # the turned operand of [R, 4C]
    float* logits     # [head rows, V], and room for their operand
    float* scratch    # attention


cdef inline int64_t up(int64_t n) noexcept nogil:
    return (n + 15) // 16 * 16


cdef inline int64_t chunk_sequences(int64_t t) noexcept nogil:
    return max(<int64_t>1, CHUNK // t)


cdef inline int64_t most_head_rows(int64_t V) noexcept nogil:
    return max(<int64_t>32, LOGITS_FLOATS // V)


cdef inline int64_t most_side_rows(int64_t V) noexcept nogil:
    # Rows whose gradients are each one sum: those of a chunk, in one block of the head.
    return min(<int64_t>CHUNK, most_head_rows(V))


# What the rows of some tokens hold is set aside, and added back when a call's own gradient of them
# is complete, which takes the head's and the embeddings'.  -0 + x is x, for every x: a token that
# comes again sets aside zeros that change nothing.
cdef void set_aside(const int32_t* ids, int64_t R, int64_t C, float* tokens,
                    float* saved) noexcept nogil:
    cdef int64_t i, j
    cdef float* row
    for i in range(R):
        row = tokens + ids[i] * C
        memcpy(saved + i * C, row, C * sizeof(float))
        for j in range(C):
            row[j] = -0.0


cdef void add_back(const int32_t* ids, int64_t R, int64_t C, float* tokens,
                   const float* saved) noexcept nogil:
    cdef int64_t i
    cdef float* row
    for i in range(R):
        row = tokens + ids[i] * C
        primitives().add(C, saved + i * C, row, row)


cdef inline int64_t head_rows(const Sizes* z, int64_t rows) noexcept nogil:
    # Rows of logits that exist at once: blocks of equal size within the buffer, whole groups.
    cdef int64_t most = most_head_rows(z.V)
    cdef int64_t blocks = (rows + most - 1) // most
    return grouped(z.f, (rows + blocks - 1) // blocks)


cdef inline int64_t operand_words(const Sizes* z, int64_t R, int64_t K) noexcept nogil:
    return up(operand_size(z.f, R, K))


cdef inline int64_t kept_floats(const Sizes* z, int64_t R, int64_t K) noexcept nogil:
    return up(kept_size(z.f, R, K))


# Whether an operand is made of what is kept.
cdef inline bint converts_kept(const Sizes* z) noexcept nogil:
    return converts(z.f) and z.f.keeps == NULL


cdef int64_t layer_floats(const Sizes* z, int64_t R) noexcept nogil:
    return (2 * up(R * z.C) + kept_floats(z, R, z.C) + kept_floats(z, R, 3 * z.C)
            + kept_floats(z, R, 4 * z.C) + 4 * up(R) + up(R * z.H)
            + (3 if converts_kept(z) else 2) * operand_words(z, R, z.C)
            + operand_words(z, R, 4 * z.C))


cdef Activations layer_activations(float* base, const Sizes* z, int64_t R,
                                   int64_t layer) noexcept nogil:
    cdef Activations a
    cdef int64_t rc = up(R * z.C), r = up(R), op = operand_words(z, R, z.C)
    a.x = base + layer * layer_floats(z, R)
    a.ln1 = a.x + rc
    a.ln1_mean = a.ln1 + op
    a.ln1_rstd = a.ln1_mean + r
    a.qkv = a.ln1_rstd + r
    a.lse = a.qkv + kept_floats(z, R, 3 * z.C)
    a.att = a.lse + up(R * z.H)
    a.mid = a.att + kept_floats(z, R, z.C)
    a.ln2 = a.mid + rc
    a.ln2_mean = a.ln2 + op
    a.ln2_rstd = a.ln2_mean + r
    a.fc = a.ln2_rstd + r
    a.gelu = a.fc + kept_floats(z, R, 4 * z.C)
    a.att_in = a.gelu + operand_words(z, R, 4 * z.C) if converts_kept(z) else a.att
    return a


cdef inline int64_t dlogits_at(const NumberFormat* f, int64_t rows, int64_t V) noexcept nogil:
    # Where the operand of the logits' gradient begins in their buffer: it takes their place, row by
    # row, unless it is longer than they are or its rows come in groups.
    return rows * V if operand_size(f, rows, V) > rows * V or f.row_group > 1 else 0


cdef Shared shared_activations(float* base, const Sizes* z, int64_t R) noexcept nogil:
    cdef Shared s
    cdef int64_t rc = up(R * z.C), r = up(R), rows = grouped(z.f, min(R, most_head_rows(z.V)))
    cdef int64_t block = z.f.pass_rows
    s.last = base + z.L * layer_floats(z, R)  # the x of a layer beyond the last
    s.ln_f = s.last + rc
    s.ln_f_mean = s.ln_f + rc
    s.ln_f_rstd = s.ln_f_mean + r
    s.ln_f_in = s.ln_f_rstd + r if converts(z.f) else s.ln_f
    s.dx = s.ln_f_rstd + r + (operand_words(z, R, z.C) if converts(z.f) else 0)
    s.datt = s.dx + rc
    s.dqkv = s.datt + max(rc, kept_floats(z, R, z.C))
    s.dy_packed = s.dqkv + kept_floats(z, R, 3 * z.C)
    s.wide_packed = s.dy_packed + up(packed_words(z.f, R, z.C))
    s.narrow = s.wide_packed + up(packed_words(z.f, R, 4 * z.C))
    s.wide = s.narrow + up(block * z.C)
    s.operand = s.wide + max(kept_floats(z, block, 4 * z.C), STRIP_ROWS * 4 * z.C)
    s.turned = s.operand + operand_words(z, block, 4 * z.C)
    s.logits = s.turned + up(turned_words(z.f, R, 4 * z.C))
    s.scratch = s.logits + up(max(rows * z.V, dlogits_at(z.f, rows, z.V)
                                  + (operand_size(z.f, rows, z.V) if converts(z.f) else 0)
                                  + turned_words(z.f, rows, z.V)))
    return s


cdef Sizes sizes_of(config, str precision):
    cdef Sizes z
    z.f = training_format(precision)
    z.V, z.T, z.L, z.H, z.C = (
        config.vocab_size, config.seq_len, config.num_layers, config.num_heads, config.embed_dim
    )
    z.D = z.C // z.H
    return z


cdef int64_t most_rows(const Sizes* z, rows):
    # Rows of the largest chunk, when a call brings at most `rows`.
    largest = max(<int64_t>CHUNK, z.T)
    return largest if rows is None else min(largest, <int64_t>rows)


cdef class Gpt2:
    """One model over caller-owned buffers.

    Parameters
    ----------
    config : ModelConfig
    weights : float32 [parameter_table(config).size]
    packed : float32 [packed_size(config, precision)], filled by `pack`
    workspace : uint8 [workspace_size(config, precision, rows)], start aligned to 64 bytes
    precision : the number format of the products' operands, by name; sums are float32
    rows : the most rows (sequences x positions) of one call; None: any number
    features : float32 [V, 16], what crystalline attention knows of the tokens; read at every call

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
                 unsigned char[::1] workspace, *, str precision="float32", rows=None,
                 const float[:, ::1] features=None):
        table = parameter_table(config)
        for name, have, need in (
            ("weights", weights.shape[0], table.size),
            ("packed", packed.shape[0], Gpt2.packed_size(config, precision)),
            ("workspace", workspace.shape[0], Gpt2.workspace_size(config, precision, rows)),
        ):
            if have != need:
                raise ValueError(f"{name} has {have} elements, the model needs {need}")
        if <size_t>&workspace[0] % 64:
            raise ValueError("the workspace must start at a multiple of 64 bytes")
        self.config = config
        self.precision = precision
        self.z = sizes_of(config, precision)
        self._take_features(features)
        self._rows = most_rows(&self.z, rows)
        self._weights, self._packed, self._workspace = weights, packed, workspace
        self._neighbor_ids = self._neighbor_weights = None  # or they would be neither
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
        self._lambdas = np.array([p.offset for p in table.parameters
                                  if p.name.endswith("crystal_lambda")], dtype=np.int64)
        self._place_packs(table)
        kinds = {"transformer.wte.weight": (WTE, 0), "transformer.wpe.weight": (WPE, 0)}
        for layer in range(config.num_layers):
            for matrix in range(MATRICES):
                kinds[f"transformer.h.{layer}.{_LAYER_NAMES[matrix]}"] = (layer, matrix)
        self._segments = np.array(
            [(*(kinds[table.parameters[s.tensor].name] if s.tensor >= 0 else (VECTORS, 0)),
              s.row, s.rows, s.start, s.stop) for s in table.segments()], dtype=np.int64)

    def _take_features(self, const float[:, ::1] features):
        cdef int64_t V = self.z.V if self.config.attention == "crystalline" else 0
        if features is None:
            features = np.empty((0, CRYSTAL_FEATURES), dtype=np.float32)
        if features.shape[0] != V or features.shape[1] != CRYSTAL_FEATURES:
            raise ValueError(
                f"features is [{features.shape[0]}, {features.shape[1]}], {self.config.attention} "
                f"attention needs [{V}, {CRYSTAL_FEATURES}]")
        self._features = features

    def _place_packs(self, table):
        cdef int64_t offset = 0, C = self.z.C, V = self.z.V
        self._packs = np.zeros((self.z.L, MATRICES, 2), dtype=np.int64)
        for layer in range(self.z.L):
            for matrix in range(MATRICES):
                K, N = table[f"transformer.h.{layer}.{_LAYER_NAMES[matrix]}"].shape
                self._packs[layer, matrix, 0] = offset
                offset += packed_words(self.z.f, K, N)
                self._packs[layer, matrix, 1] = offset
                offset += packed_words(self.z.f, N, K)
        self._wte_head = offset
        self._wte_back = offset + packed_words(self.z.f, C, V)

    @staticmethod
    def packed_size(config, str precision="float32") -> int:
        """Return the words of the packed weights: every matrix but the positions, both ways."""
        cdef Sizes z = sizes_of(config, precision)
        cdef int64_t C = z.C
        pairs = ((C, 3 * C), (C, C), (C, 4 * C), (4 * C, C))
        layer = sum(packed_words(z.f, K, N) + packed_words(z.f, N, K) for K, N in pairs)
        return z.L * layer + packed_words(z.f, C, z.V) + packed_words(z.f, z.V, C)

    @staticmethod
    def workspace_size(config, str precision="float32", rows=None) -> int:
        """Return the bytes of activations and scratch that `compute` needs.

        `rows` is the most rows (sequences x positions) of one call; None is for any batch.
        """
        cdef Sizes z = sizes_of(config, precision)
        cdef int64_t R = most_rows(&z, rows)
        cdef Shared s = shared_activations(NULL, &z, R)
        cdef int64_t scratch = attention.scratch_floats(
            z.T, z.D, config.attention == "crystalline", z.f)
        return <int64_t><size_t>(s.scratch + up(scratch))

    @staticmethod
    def side_size(config, rows=None) -> int:
        """Return the floats of a side buffer for calls of at most `rows` rows (see `compute`).

        It holds the gradients of positions and vectors, and a row of wte's for each token.
        """
        table = parameter_table(config)
        cdef Sizes z = sizes_of(config, "float32")
        vectors = table.size - min(p.offset for p in table.parameters if len(p.shape) == 1)
        return vectors + (z.T + most_rows(&z, rows)) * z.C

    @staticmethod
    def side_rows(config) -> int:
        """Return the most rows (sequences x positions) that a call with a side buffer takes."""
        return most_side_rows(config.vocab_size)

    @staticmethod
    def allocate(config, float[::1] weights, *, str precision="float32",
                 const float[:, ::1] features=None) -> Gpt2:
        """Return a model over `weights` with buffers of its own, packed and ready."""
        model = Gpt2(config, weights, aligned_empty((Gpt2.packed_size(config, precision),)),
                     aligned_empty((Gpt2.workspace_size(config, precision),), np.uint8),
                     precision=precision, features=features)
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
        primitives().repack(self.z.f, rows, N, w, packed + row // self.z.f.elements * CL_PANEL,
                            words(self.z.f, K), packed_t + row * words(self.z.f, N),
                            words(self.z.f, N), store_of(self._packed.shape[0], packed))

    def set_neighbors(self, const int32_t[:, ::1] ids, const float[:, ::1] weights) -> None:
        """Take the tables of neighbors that `compute` spreads targets over: [V, k] each.

        The weights of a token sum to 1, or are all 0 where it has no neighbors.  The model keeps
        views: whoever changes the tables afterwards keeps every id in the vocabulary.
        """
        cdef int64_t token
        expect_neighbors(self.z.V, ids, weights)
        for token in range(self.z.V):
            expect_neighbors_of(<int32_t>token, ids, weights)
        self._neighbor_ids, self._neighbor_weights = ids, weights

    def compute(self, const int32_t[:, ::1] tokens, float[::1] grads, *, double scale,
                bint accumulate=False, uint64_t seed=0, uint64_t step=0,
                uint64_t first_sequence=0, float[::1] side=None, double epsilon=0.0) -> float:
        """Run tokens [n, t + 1] forward and backward.

        The gradients of `scale` times the summed loss are stored in grads [size] (OUT), or added
        to them (INOUT) with `accumulate`.  Dropout is a function of (seed, step, sequence
        number, place); `first_sequence` is the number of the first of these n sequences.
        With `side` [side_size(config, rows)], the gradients are added to `grads` as one number
        each: every element of `grads` is rounded once, as if this call's gradients had been
        computed apart and then added.  It takes n * t rows, at most side_rows(config).

        With `epsilon` from 0 to below 1, the loss that the gradients are of is the cross-entropy
        against (1 - epsilon) onehot(target) + epsilon times the target's neighbors (see
        `set_neighbors`); its sum is `smoothed_loss` afterwards.

        Returns the sum of -ln p over the n * t targets, in nats, whatever `epsilon`.
        """
        cdef int64_t n = tokens.shape[0], t = tokens.shape[1] - 1
        self._check_tokens(tokens, t)
        cdef Gradients g
        cdef int64_t vectors = self._size - self._vectors, places = self.z.T * self.z.C
        cdef float* saved = NULL
        g.matrices = g.vectors = &grads[0]
        g.tokens, g.positions = &grads[self._wte], &grads[self._wpe]
        if side is not None:
            if side.shape[0] != vectors + places + self._rows * self.z.C:
                raise ValueError(f"side has {side.shape[0]} floats")
            if accumulate or n * t > most_side_rows(self.z.V):
                raise ValueError(
                    f"side takes {most_side_rows(self.z.V)} rows at most, and no accumulate")
            g.vectors = &side[0] - self._vectors
            g.positions = &side[vectors]
            saved = g.positions + places
        if grads.shape[0] != self._size:
            raise ValueError(f"grads has {grads.shape[0]} floats, the model needs {self._size}")
        expect_epsilon(epsilon)
        cdef SoftTargets soft
        cdef const SoftTargets* spread = NULL
        if epsilon > 0.0:
            if self._neighbor_ids is None:
                raise ValueError("epsilon needs neighbors: call set_neighbors first")
            soft.k, soft.epsilon = self._neighbor_ids.shape[1], epsilon
            soft.ids, soft.weights = &self._neighbor_ids[0, 0], &self._neighbor_weights[0, 0]
            spread = &soft
        cdef int32_t[::1] ids = np.ascontiguousarray(tokens[:, :t]).reshape(-1)
        cdef int32_t[::1] targets = np.ascontiguousarray(tokens[:, 1:]).reshape(-1)
        cdef double loss = 0.0, smoothed = 0.0, part = 0.0
        cdef uint64_t key = mix(mix(0, seed), step)
        cdef StoreMode store = CL_ADD if accumulate or side is not None else CL_STORE
        cdef int64_t start = 0, count
        with nogil:
            begin_thread()
            if not accumulate:
                memset(g.vectors + self._vectors, 0, vectors * sizeof(float))
                memset(g.positions, 0, places * sizeof(float))
            if saved != NULL:
                set_aside(&ids[0], n * t, self.z.C, g.tokens, saved)
            while start < n:
                count = min(n - start, chunk_sequences(t))
                self.forward(&ids[start * t], count, t, key, first_sequence + start,
                             self._threshold > 0)
                loss += self.head(&targets[start * t], count * t, <float>scale, g.tokens,
                                  store, spread, &part)
                smoothed += part
                self.backward(&ids[start * t], count, t, &g, store, key, first_sequence + start)
                store = CL_ADD
                start += count
            if saved != NULL:
                add_back(&ids[0], n * t, self.z.C, g.tokens, saved)
                primitives().add(places, &grads[self._wpe], g.positions, &grads[self._wpe])
                primitives().add(vectors, &grads[self._vectors], g.vectors + self._vectors,
                                 &grads[self._vectors])
            end_thread()
        self.smoothed_loss = smoothed if epsilon > 0.0 else loss
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
            begin_thread()
            while start < n:
                count = min(n - start, chunk_sequences(t))
                self.forward(&ids[start * t], count, t, 0, 0, False)
                loss += self.head(&targets[start * t], count * t, 0.0, NULL, CL_STORE, NULL, NULL)
                start += count
            end_thread()
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
            begin_thread()
            while start < n:
                count = min(n - start, chunk_sequences(t))
                R = count * t
                self.forward(&ids[start * t], count, t, 0, 0, False)
                s = shared_activations(<float*>&self._workspace[0], &self.z, R)
                self.head_logits(R, s.ln_f_in, &view[start, 0, 0])
                start += count
            end_thread()
        return out

    def token_losses(self, const int32_t[::1] tokens):
        """Return -ln p of tokens[1:] given those before, float64 [n - 1]; tokens is int32 [n]."""
        cdef int64_t t = tokens.shape[0] - 1, C = self.z.C, V = self.z.V, row = 0, n, i
        self._check_tokens(np.asarray(tokens).reshape(1, -1), t)
        out = np.empty(t, dtype=np.float64)
        cdef double[::1] losses = out
        cdef Shared s = shared_activations(<float*>&self._workspace[0], &self.z, t)
        with nogil:
            begin_thread()
            self.forward(&tokens[0], 1, t, 0, 0, False)
            while row < t:
                n = min(head_rows(&self.z, t), t - row)
                self.head_logits(n, s.ln_f_in + row * words(self.z.f, C), s.logits)
                for i in range(n):
                    losses[row + i] = primitives().cross_entropy(1, V, s.logits + i * V, V,
                                                                 &tokens[row + i + 1], 0.0, False,
                                                                 NULL, NULL)
                row += n
            end_thread()
        return out

    def _check_tokens(self, const int32_t[:, ::1] tokens, int64_t t):
        if tokens.shape[0] < 1 or not 1 <= t <= self.z.T:
            raise ValueError(
                f"tokens is [{tokens.shape[0]}, {tokens.shape[1]}]: at least one sequence of "
                f"1 to {self.z.T} positions is needed")
        if min(tokens.shape[0], chunk_sequences(t)) * t > self._rows:
            raise ValueError(
                f"{tokens.shape[0]} sequences of {t} are more than the workspace's "
                f"{self._rows} rows")
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
        cdef int64_t R = n * t, C = self.z.C, layer, row, rows
        cdef const NumberFormat* f = self.z.f
        cdef int64_t wc = words(f, C), J = words(f, 4 * C)
        cdef uint64_t first = first_sequence * t * C  # number of the chunk's first element
        cdef float* base = <float*>&self._workspace[0]
        cdef const float* w = &self._weights[0]
        cdef const float* residual
        cdef const int64_t* o
        cdef Activations a = layer_activations(base, &self.z, R, 0)
        cdef Shared s = shared_activations(base, &self.z, R)
        cdef float* nxt
        cdef AttentionDropout drop
        cdef Crystal crystal
        cdef Kept qkv, att, fc, all_qkv, all_att, all_fc
        cdef const float* att_in
        p.embed(R, t, C, ids, w + self._wte, w + self._wpe, a.x)
        if dropping:
            self.drop(R * C, a.x, a.x, key, EMBEDDING, 0, first)
        for layer in range(self.z.L):
            o = &self._offsets[layer, 0]
            a = layer_activations(base, &self.z, R, layer)
            nxt = base + (layer + 1) * layer_floats(&self.z, R)  # x of the next layer, or last
            all_qkv, all_att = kept(f, a.qkv, 3 * C), kept(f, a.att, C)
            all_fc = kept(f, a.fc, 4 * C)
            row = 0
            while row < R:
                rows = min(f.pass_rows, R - row)
                self.norm(rows, a.x + row * C, w + o[LN1_GAMMA], w + o[LN1_BETA], s.narrow,
                          a.ln1 + row * wc, a.ln1_mean + row, a.ln1_rstd + row)
                qkv = kept_part(&all_qkv, row, 0)
                multiply_kept(f, rows, 3 * C, C, a.ln1 + row * wc, wc,
                              &self._packed[self._packs[layer, W_QKV, 0]], w + o[B_QKV], &qkv)
                row += rows
            drop = self.attention_dropout(key, layer, first_sequence, dropping)
            crystal = self.crystal(ids, layer)
            attention.forward(f, n, t, self.z.H, self.z.D, &all_qkv, &crystal, &drop, &all_att,
                              a.lse, s.scratch)
            row = 0
            while row < R:
                rows = min(f.pass_rows, R - row)
                att = kept_part(&all_att, row, 0)
                att_in = row_operand(f, rows, C, &att, a.att_in + row * wc)
                residual = NULL if dropping else a.x + row * C
                self.linear(rows, C, C, att_in, layer, W_OUT, B_OUT, residual, a.mid + row * C)
                if dropping:
                    self.drop(rows * C, a.mid + row * C, a.mid + row * C, key, ATTENTION_OUT,
                              layer, first + row * C)
                    p.add(rows * C, a.mid + row * C, a.x + row * C, a.mid + row * C)
                self.norm(rows, a.mid + row * C, w + o[LN2_GAMMA], w + o[LN2_BETA], s.narrow,
                          a.ln2 + row * wc, a.ln2_mean + row, a.ln2_rstd + row)
                fc = kept_part(&all_fc, row, 0)
                multiply_gelu(f, rows, 4 * C, C, a.ln2 + row * wc,
                              &self._packed[self._packs[layer, W_FC, 0]], w + o[B_FC], &fc, s.wide,
                              a.gelu + row * J)
                residual = NULL if dropping else a.mid + row * C
                self.linear(rows, 4 * C, C, a.gelu + row * J, layer, W_PROJ, B_PROJ, residual,
                            nxt + row * C)
                if dropping:
                    self.drop(rows * C, nxt + row * C, nxt + row * C, key, MLP_OUT, layer,
                              first + row * C)
                    p.add(rows * C, nxt + row * C, a.mid + row * C, nxt + row * C)
                row += rows
        p.layernorm(R, C, s.last, w + self._ln_f, w + self.ln_f_beta(), EPSILON, s.ln_f,
                    s.ln_f_mean, s.ln_f_rstd)
        if converts(f):
            f.to_operand(R, C, s.ln_f, C, s.ln_f_in)

    cdef void norm(self, int64_t rows, const float* x__rc, const float* gamma, const float* beta,
                   float* narrow, float* out, float* mean, float* rstd) noexcept nogil:
        # LayerNorm into an operand; where that converts, strip by strip through `narrow`.
        cdef const Primitives* p = primitives()
        cdef const NumberFormat* f = self.z.f
        cdef int64_t C = self.z.C, wc = words(f, C), row = 0, n
        if not converts(f):
            p.layernorm(rows, C, x__rc, gamma, beta, EPSILON, out, mean, rstd)
            return
        while row < rows:
            n = min(<int64_t>STRIP_ROWS, rows - row)
            p.layernorm(n, C, x__rc + row * C, gamma, beta, EPSILON, narrow, mean + row, rstd + row)
            f.to_operand(n, C, narrow, C, out + row * wc)
            row += n

    cdef void linear(self, int64_t rows, int64_t K, int64_t N, const float* operand, int64_t layer,
                     int matrix, int bias, const float* residual__rn, float* y__rn) noexcept nogil:
        # y = x W + b (+ residual)
        multiply(self.z.f, rows, N, K, operand, words(self.z.f, K),
                 &self._packed[self._packs[layer, matrix, 0]], y__rn, N,
                 &self._weights[self._offsets[layer, bias]], residual__rn, CL_STORE)

    cdef void head_logits(self, int64_t rows, const float* operand,
                          float* logits__rv) noexcept nogil:
        multiply(self.z.f, rows, self.z.V, self.z.C, operand, words(self.z.f, self.z.C),
                 &self._packed[self._wte_head], logits__rv, self.z.V, NULL, NULL, CL_STORE)

    cdef double head(self, const int32_t* targets, int64_t rows, float scale, float* grads,
                     StoreMode store, const SoftTargets* soft, double* smoothed) noexcept nogil:
        # Loss of all rows, block by block; with grads, d(wte), also d(ln_f) into datt.  The
        # loss against soft targets goes into smoothed.
        cdef const Primitives* p = primitives()
        cdef int64_t C = self.z.C, V = self.z.V, block = head_rows(&self.z, rows), row = 0, n
        cdef const NumberFormat* f = self.z.f
        cdef int64_t wc = words(f, C)
        cdef Shared s = shared_activations(<float*>&self._workspace[0], &self.z, rows)
        cdef float* dlogits
        cdef double loss = 0.0, part = 0.0
        if soft != NULL:
            smoothed[0] = 0.0
        while row < rows:
            n = min(block, rows - row)
            self.head_logits(n, s.ln_f_in + row * wc, s.logits)
            loss += p.cross_entropy(n, V, s.logits, V, targets + row, scale, grads != NULL, soft,
                                    &part)
            if soft != NULL:
                smoothed[0] += part
            if grads != NULL:
                dlogits = s.logits
                if converts(f):
                    dlogits += dlogits_at(f, n, V)
                    f.to_operand(n, V, s.logits, V, dlogits)
                multiply(f, n, C, V, dlogits, words(f, V), &self._packed[self._wte_back],
                         s.datt + row * C, C, NULL, NULL, CL_STORE)
                if converts(f):
                    f.turn_operand(n, V, dlogits, dlogits + operand_size(f, n, V))
                    dlogits += operand_size(f, n, V)
                pack(f, n, C, s.ln_f + row * C, C, s.dy_packed, NULL)
                multiply_ta(f, V, C, n, dlogits, s.dy_packed, grads, C, store)
            store = CL_ADD
            row += n
        return loss

    cdef void backward(self, const int32_t* ids, int64_t n, int64_t t, const Gradients* g,
                       StoreMode store, uint64_t key, uint64_t first_sequence) noexcept nogil:
        # From d(ln_f) in datt down to the embeddings.  Vectors' gradients always add.
        cdef const Primitives* p = primitives()
        cdef int64_t R = n * t, C = self.z.C, W = 4 * C, layer, row, rows
        cdef uint64_t first = first_sequence * t * C
        cdef float* base = <float*>&self._workspace[0]
        cdef const float* w = &self._weights[0]
        cdef const int64_t* o
        cdef const float* dy
        cdef Activations a
        cdef Shared s = shared_activations(base, &self.z, R)
        cdef AttentionDropout drop
        cdef Crystal crystal
        cdef float* dlambdas = NULL
        cdef bint dropping = self._threshold > 0
        cdef const NumberFormat* f = self.z.f
        cdef int64_t wc = words(f, C)
        cdef const float* left
        cdef Kept fc, wide, datt, all_datt, qkv, att, dqkv, all_dqkv
        p.layernorm_backward(R, C, s.datt, s.last, w + self._ln_f, s.ln_f_mean, s.ln_f_rstd, s.dx,
                             0, g.vectors + self._ln_f, g.vectors + self.ln_f_beta())
        for layer in range(self.z.L - 1, -1, -1):
            o = &self._offsets[layer, 0]
            a = layer_activations(base, &self.z, R, layer)
            # mlp: next = mid + drop(gelu(fc) W_PROJ + b), fc = ln2 W_FC + b
            row = 0
            while row < R:
                rows = min(f.pass_rows, R - row)
                dy = s.dx + row * C
                if dropping:
                    self.drop(rows * C, dy, s.narrow, key, MLP_OUT, layer, first + row * C)
                    dy = s.narrow
                left = self.float_gradient(R, row, rows, C, dy, g.vectors + o[B_PROJ],
                                           s.dy_packed, s.operand)
                fc, wide = kept(f, a.fc, W), kept(f, s.wide, W)
                fc = kept_part(&fc, row, 0)
                multiply_gelu_slope(f, rows, W, C, left,
                                    &self._packed[self._packs[layer, W_PROJ, 1]], &fc, &wide)
                self.input_gradient(R, row, rows, C, W, &wide, layer, W_FC, g.vectors + o[B_FC],
                                    s.wide_packed, s.operand, s.narrow)
                p.layernorm_backward(rows, C, s.narrow, a.mid + row * C, w + o[LN2_GAMMA],
                                     a.ln2_mean + row, a.ln2_rstd + row, s.dx + row * C, 1,
                                     g.vectors + o[LN2_GAMMA], g.vectors + o[LN2_BETA])
                row += rows
            self.weight_gradient(R, W, C, a.gelu, s.turned, s.dy_packed, g.matrices + o[W_PROJ],
                                 store)
            self.weight_gradient(R, C, W, a.ln2, s.turned, s.wide_packed, g.matrices + o[W_FC],
                                 store)
            # attention: mid = x + drop(att W_OUT + b), qkv = ln1 W_QKV + b
            all_datt, all_dqkv = kept(f, s.datt, C), kept(f, s.dqkv, 3 * C)
            qkv, att = kept(f, a.qkv, 3 * C), kept(f, a.att, C)
            row = 0
            while row < R:
                rows = min(f.pass_rows, R - row)
                dy = s.dx + row * C
                if dropping:
                    self.drop(rows * C, dy, s.narrow, key, ATTENTION_OUT, layer, first + row * C)
                    dy = s.narrow
                left = self.float_gradient(R, row, rows, C, dy, g.vectors + o[B_OUT], s.dy_packed,
                                           s.operand)
                datt = kept_part(&all_datt, row, 0)
                multiply_kept(f, rows, C, C, left, wc,
                              &self._packed[self._packs[layer, W_OUT, 1]], NULL, &datt)
                row += rows
            self.weight_gradient(R, C, C, a.att_in, s.turned, s.dy_packed, g.matrices + o[W_OUT],
                                 store)
            drop = self.attention_dropout(key, layer, first_sequence, dropping)
            crystal = self.crystal(ids, layer)
            if crystal.features != NULL and not self.freeze_lambda:
                dlambdas = g.vectors + self._lambdas[layer]
            attention.backward(f, n, t, self.z.H, self.z.D, &all_datt, &qkv, &att, a.lse, &crystal,
                               &drop, &all_dqkv, dlambdas, s.scratch)
            row = 0
            while row < R:
                rows = min(f.pass_rows, R - row)
                dqkv = kept_part(&all_dqkv, row, 0)
                self.input_gradient(R, row, rows, C, 3 * C, &dqkv, layer, W_QKV,
                                    g.vectors + o[B_QKV], s.wide_packed, s.operand, s.narrow)
                p.layernorm_backward(rows, C, s.narrow, a.x + row * C, w + o[LN1_GAMMA],
                                     a.ln1_mean + row, a.ln1_rstd + row, s.dx + row * C, 1,
                                     g.vectors + o[LN1_GAMMA], g.vectors + o[LN1_BETA])
                row += rows
            self.weight_gradient(R, C, 3 * C, a.ln1, s.turned, s.wide_packed,
                                 g.matrices + o[W_QKV], store)
        if dropping:
            self.drop(R * C, s.dx, s.dx, key, EMBEDDING, 0, first)
        p.embed_backward(R, t, C, ids, s.dx, g.tokens, g.positions)

    cdef const float* float_gradient(self, int64_t R, int64_t row, int64_t rows, int64_t N,
                                     const float* dy__rn, float* dbias, float* dy_packed,
                                     float* operand) noexcept nogil:
        # For y = x W + b and some rows of dy: db += column sums of dy; dy goes into its place among
        # the panels of all R rows, for `weight_gradient`.  Returns the operand of dy.
        cdef const NumberFormat* f = self.z.f
        pack_rows(f, R, N, row, rows, dy__rn, N, dy_packed, dbias)
        if not converts(f):
            return dy__rn
        f.to_operand(rows, N, dy__rn, N, operand)
        return operand

    cdef void input_gradient(self, int64_t R, int64_t row, int64_t rows, int64_t K, int64_t N,
                             const Kept* dy, int64_t layer, int matrix, float* dbias,
                             float* dy_packed, float* operand, float* dx__rk) noexcept nogil:
        # The same for dy that is kept, and dx = dy W^T.
        cdef const NumberFormat* f = self.z.f
        cdef const float* left
        pack_kept(f, R, N, row, rows, dy, dy_packed, dbias)
        left = row_operand(f, rows, N, dy, operand)
        multiply(f, rows, K, N, left, words(f, N), &self._packed[self._packs[layer, matrix, 1]],
                 dx__rk, K, NULL, NULL, CL_STORE)

    cdef void weight_gradient(self, int64_t R, int64_t K, int64_t N, const float* operand,
                              float* turned, const float* dy_packed, float* dw__kn,
                              StoreMode store) noexcept nogil:
        # dW (+)= x^T dy
        if converts(self.z.f):
            self.z.f.turn_operand(R, K, operand, turned)
            operand = turned
        multiply_ta(self.z.f, K, N, R, operand, dy_packed, dw__kn, N, store)

    cdef const float* qkv(self, int64_t layer, int64_t rows) noexcept nogil:
        return layer_activations(<float*>&self._workspace[0], &self.z, rows, layer).qkv

    cdef const float* last_hidden(self, int64_t rows) noexcept nogil:
        cdef Shared s = shared_activations(<float*>&self._workspace[0], &self.z, rows)
        return s.ln_f + (rows - 1) * self.z.C

    cdef int64_t ln_f_beta(self) noexcept nogil:
        return self._ln_f + up(self.z.C)

    cdef Crystal crystal(self, const int32_t* ids, int64_t layer) noexcept nogil:
        cdef Crystal c
        c.ids = ids
        c.features = c.lambdas = NULL
        if self._lambdas.shape[0]:
            c.features = &self._features[0, 0]
            c.lambdas = &self._weights[self._lambdas[layer]]
        return c

    cdef AttentionDropout attention_dropout(self, uint64_t key, int64_t layer,
                                            uint64_t first_sequence, bint dropping) noexcept nogil:
        cdef AttentionDropout d
        d.key = mix(key, 4 * layer + ATTENTION)
        d.first_sequence = first_sequence
        d.threshold = self._threshold if dropping else 0
        d.scale = self._keep_scale
        return d

    cdef void drop(self, int64_t n, const float* x, float* out, uint64_t key, int site,
                   int64_t layer, uint64_t first) noexcept nogil:
        # Element (sequence, position, channel) has its own number, whoever computes it.
        primitives().dropout(n, x, out, mix(key, 4 * layer + site), first, self._threshold,
                             self._keep_scale)
