"""A transformer in training: forward and backward, for one process and one lane.

A `Transformer` binds a configuration to three buffers that the caller owns: the flat weights, their
packed panels, and a workspace for activations.  `compute` runs whole sequences forward and
backward without the GIL and stores or adds the gradients of every tensor in one flat buffer.

What the layers are is in `crystalline/model/layers`; here is their order:

    x = embeddings;  x += attention(norm1(x)), x += mlp(norm2(x)) in every layer;  head(norm(x))

Between two attentions all work is row by row, so it is done in blocks of the format's pass_rows,
which stay in the cache from one pass to the next; the weight gradients then take all rows of a
chunk of sequences at once.  Letters as in `config.py`; R = rows of a chunk.  Chunks and blocks
depend on the configuration only, so the bits do too.

The operands of every product with weights, and in attention, are rounded to the model's precision,
a number format (see `NumberFormat` in `primitives/primitives.h`); sums are float32, and so is the
stream of residuals.  What else is kept is float32 or the format's operand (see `kept.pxd`).

With `recompute` only the inputs of layers are kept for the backward pass, which takes each layer
forward once more before it goes back through it: the same bits, for less memory and more time.

A model with adapters (see `adapters.py`) trains them alone: its weights are only read, and what
is said of gradients, segments and sizes is said of the adapters' own flat buffer.
"""

import numpy as np

from crystalline._kernels.memory import aligned_empty
from crystalline.model.adapters import adapter_table
from crystalline.model.adapters import adapters as adapters_of
from crystalline.model.architectures.table import Role
from crystalline.model.params import parameter_table

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy, memset

from crystalline._kernels.attention cimport Crystal
from crystalline._kernels.crossentropy cimport (
    expect_epsilon, expect_neighbors, expect_neighbors_of,
)
from crystalline._kernels.formats cimport converts, packed_words, training_format, words
from crystalline._kernels.isa cimport (
    CL_ADD, CL_PANEL, CL_STORE, Kept, NumberFormat, SoftTargets, StoreMode,
    begin_thread, end_thread, primitives,
)
from crystalline._kernels.kept cimport float_rows, kept, kept_part, multiply_kept, row_operand
from crystalline._kernels.marks cimport (
    ATTENTION, D_ATTENTION, D_EMBED, D_NORM, D_OUT, DOWN, EMBED, HEAD, NORM, OUT, PACKING, QKV_PASS,
    W_DOWN, W_OUT, W_QKV, W_UP, MarkRow, mark, mark_begin,
)
from crystalline._kernels.optimizer cimport store_of
from crystalline._kernels.random cimport drop_threshold, mix
from crystalline.model.layers.adapter cimport adapt, adapt_backward, adapter_gradient
from crystalline.model.layers.attention cimport (
    attend, attend_backward, project, project_backward,
)
from crystalline.model.layers.bind cimport Binding, expect_features, sizes_of
from crystalline.model.layers.buffers cimport (
    ACT, ATT, ATT_IN, BUFFERS, DATT, DX, DY_PACKED, FINAL, FINAL_IN, LOW_DOWN, LOW_DY_PACKED,
    LOW_OUT, LOW_QKV, LOW_UP, LOW_WIDE_PACKED, MEAN1, MEAN2, MEAN_F, MID, NARROW, NORM1, NORM2,
    OPERAND, RSTD1, RSTD2, RSTD_F, STRIP, TURNED, WIDE_PACKED, X, Buffer, Buffers, buffers,
    most_head_rows, of_layer, shared,
)
from crystalline.model.layers.head cimport head_logits, head_loss
from crystalline.model.layers.linear cimport (
    input_gradient, linear, output_gradient, weight_gradient,
)
from crystalline.model.layers.mlp cimport expand, expand_backward
from crystalline.model.layers.norm cimport (
    normalize, normalize_backward, normalize_operand,
)
from crystalline.model.layers.table cimport (
    Adapter, Dropping, Factor, Gradients, Layer, Matrix, Sizes,
)

CHUNK_ROWS = CHUNK

cdef enum:
    CHUNK = 512  # rows that one chunk of sequences aims at

cdef enum:  # where dropout acts; attention's probabilities are the site that is not here
    EMBEDDING = 0
    ATTENTION_OUT = 2
    MLP_OUT = 3


cdef inline int64_t chunk_sequences(int64_t t) noexcept nogil:
    return max(<int64_t>1, CHUNK // t)


# Buffers for R rows of which only X, the layers' inputs, has a place for every layer; the others of
# a layer have one place for all.  Then the stride of layers is X's: see `of_this_layer`.
cdef Buffers lean_buffers(const Sizes* z, int64_t R, float* base) noexcept nogil:
    cdef Buffers b = buffers(z, R, base)
    cdef int64_t of_x = b.at[<int>NORM1], others = b.layer - of_x, moved = (z.L - 1) * others
    cdef int which
    for which in range(BUFFERS):
        if which >= <int>FINAL:
            b.at[which] -= moved
        elif which != <int>X:
            b.at[which] += z.L * of_x
    b.layer = of_x
    b.size -= moved
    return b


cdef Buffers of_this_layer(const Buffers* b, bint lean, int64_t layer) noexcept nogil:
    cdef Buffers here = b[0]
    cdef int which
    if lean:
        for which in range(<int>X + 1, <int>FINAL):
            here.at[which] -= layer * b.layer
    return here


cdef Buffers placed(const Sizes* z, bint lean, int64_t R, float* base) noexcept nogil:
    return lean_buffers(z, R, base) if lean else buffers(z, R, base)


# Whether a call with a side buffer brings more rows than a block of the head has: the gradient of
# the head is then a sum over blocks, and is set apart whole.
cdef inline bint head_apart(int64_t V, int64_t R) noexcept nogil:
    return R > most_head_rows(V)


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


cdef inline void drop(const Dropping* d, int64_t layer, int site, int64_t n, int64_t start,
                      const float* x, float* out) noexcept nogil:
    # n elements from `start` of [R, C] on.  Element (sequence, position, channel) has its own
    # number, whoever computes it.
    primitives().dropout(n, x, out, mix(d.key, 4 * layer + site), d.first + start, d.threshold,
                         d.scale)


cdef inline const Matrix* last_matrix(const Layer* y, int site) noexcept nogil:
    # Of a branch, whose result is dropped at `site` and added to the stream.
    return &y.attention.out if site == ATTENTION_OUT else &y.mlp.down


cdef void place_factor(Factor* x, int64_t at, tuple pack, const float* packed):
    cdef int64_t start = pack[0], start_t = pack[1]
    x.at, x.packed, x.packed_t = at, packed + start, packed + start_t


cdef int64_t most_rows(const Sizes* z, rows):
    # Rows of the largest chunk, when a call brings at most `rows`.
    largest = max(<int64_t>CHUNK, z.T)
    return largest if rows is None else min(largest, <int64_t>rows)


cdef dict _packs(config, adapter, const Sizes* z):
    # Matrix of a product -> where it is packed, where its transpose, and where both end, in words.
    cdef int64_t K, N
    at = 0
    found = {}
    table = parameter_table(config)
    tied = table.find(Role.HEAD) is None
    matrices = [p for p in table.parameters if p.layer >= 0 and len(p.shape) > 1]
    matrices.append(table.find(Role.TOKENS if tied else Role.HEAD))
    if adapter is not None:
        matrices += adapter_table(config, adapter).parameters
    for p in matrices:
        K, N = p.shape
        sizes = packed_words(z.f, K, N), packed_words(z.f, N, K)
        if p.layer >= 0:
            found[p.name] = at, at + sizes[0], at + sum(sizes)
        else:  # what the head multiplies by comes first
            found[p.name] = at + sizes[1], at, at + sum(sizes)
        at += sum(sizes)
    return found


cdef int64_t[:, ::1] _segments_of(table, dict packs):
    # The segments of a flat buffer, with where they are packed.
    rows = []
    for s in table.segments():
        parameter = table.parameters[s.tensor] if s.tensor >= 0 else None
        at, at_t, _ = packs.get(parameter.name, (-1, -1, 0)) if parameter else (-1, -1, 0)
        K, N = parameter.shape if parameter else (0, 0)
        rows.append((s.start, s.stop, parameter is not None, s.row, s.rows, K, N, at, at_t))
    return np.array(rows, dtype=np.int64)


cdef class Transformer:
    """One model over caller-owned buffers.

    Parameters
    ----------
    config : ModelConfig
    weights : float32 [parameter_table(config).size]
    packed : float32 [packed_size(config, precision, adapter)], filled by `pack`
    workspace : uint8 [workspace_size(config, precision, rows, adapter, recompute)], start aligned
        to 64 bytes
    precision : the number format of the products' operands, by name; sums are float32
    rows : the most rows (sequences x positions) of one call; None: any number
    features : float32 [V, 16], what crystalline attention knows of the tokens; read at every call
    recompute : whether the backward pass takes layers forward once more, for less memory
    adapter : AdapterConfig of adapters to train in place of the weights, or None
    adapters : float32 [adapter_table(config, adapter).size], theirs

    >>> import numpy as np
    >>> from crystalline.model.config import ModelConfig
    >>> from crystalline.model.params import initialize, parameter_table
    >>> config = ModelConfig(vocab_size=11, seq_len=8, num_layers=1, num_heads=2, embed_dim=16)
    >>> size = parameter_table(config).size
    >>> weights, grads = np.zeros(size, np.float32), np.zeros(size, np.float32)
    >>> initialize(config, weights, seed=1)
    >>> model = Transformer.allocate(config, weights)
    >>> tokens = np.arange(9, dtype=np.int32).reshape(1, 9)
    >>> round(model.compute(tokens, grads, scale=1 / 8) / 8, 1)  # log(11) at the start
    2.4
    """

    def __init__(self, config, float[::1] weights, float[::1] packed,
                 unsigned char[::1] workspace, *, str precision="float32", rows=None,
                 const float[:, ::1] features=None, adapter=None, float[::1] adapters=None,
                 bint recompute=False):
        table = parameter_table(config)
        trained = table if adapter is None else adapter_table(config, adapter)
        if adapter is None:
            adapters = weights
        elif adapters is None:
            raise ValueError(f"{adapter} needs the adapters' buffer")
        for name, have, need in (
            ("weights", weights.shape[0], table.size),
            ("adapters", adapters.shape[0], trained.size),
            ("packed", packed.shape[0], Transformer.packed_size(config, precision, adapter)),
            ("workspace", workspace.shape[0],
             Transformer.workspace_size(config, precision, rows, adapter, recompute)),
        ):
            if have != need:
                raise ValueError(f"{name} has {have} elements, the model needs {need}")
        if <size_t>&workspace[0] % 64:
            raise ValueError("the workspace must start at a multiple of 64 bytes")
        self.config, self.precision, self.adapter = config, precision, adapter
        self._binding = Binding(config)
        self._binding.describe(training_format(precision), 0 if adapter is None else adapter.rank)
        self.z = self._binding.z
        self.layers, self.final, self.head = (
            self._binding.layers, &self._binding.final, &self._binding.head)
        self._features = expect_features(config, features)
        self._rows, self._lean = most_rows(&self.z, rows), recompute
        self._weights, self._packed, self._workspace = weights, packed, workspace
        self._trained = adapters
        self._neighbor_ids = self._neighbor_weights = None  # or they would be neither
        self._threshold = drop_threshold(config.dropout)
        self._keep_scale = <float>(1.0 / (1.0 - config.dropout))
        self._size = trained.size
        self._vectors = min(p.offset for p in table.parameters if len(p.shape) == 1)
        self._vectors_size = table.size - self._vectors
        self._unread = np.zeros(0 if adapter is None else self._vectors_size, np.float32)
        self._tokens = table.find(Role.TOKENS).offset
        positions, head = table.find(Role.POSITIONS), table.find(Role.HEAD)
        self._positions = -1 if positions is None else positions.offset
        self._head = self._tokens if head is None else head.offset
        self._place(table)

    def _place(self, table):
        # Bind every tensor, and describe what the segments are repacked into.
        packs = _packs(self.config, self.adapter, &self.z)
        cdef float* packed = &self._packed[0]
        cdef Adapter* a
        for p in table.parameters:
            if len(p.shape) == 1:
                self._binding.place_vector(p.role, p.layer, p.offset, &self._weights[p.offset])
            elif p.name in packs:
                at, at_t, _ = packs[p.name]
                if p.role in (Role.TOKENS, Role.HEAD):  # its rows are the columns of the product
                    at, at_t = at_t, at
                self._binding.place_matrix(p.role, p.layer, p.offset, packed + <int64_t>at,
                                           packed + <int64_t>at_t)
        segments = _segments_of(table, packs)
        if self.adapter is None:
            self._segments, self._frozen = segments, segments[:0]
            return
        self._segments = _segments_of(adapter_table(self.config, self.adapter), packs)
        self._frozen = segments
        for one in adapters_of(self.config, self.adapter):
            a = &self._binding._matrix(one.matrix.role, one.matrix.layer).adapter
            a.r, a.scale = self.adapter.rank, self.adapter.scale
            place_factor(&a.a, one.a.offset, packs[one.a.name], packed)
            place_factor(&a.b, one.b.offset, packs[one.b.name], packed)

    @staticmethod
    def packed_size(config, str precision="float32", adapter=None) -> int:
        """Return the words of the packed weights: every matrix of a product, both ways."""
        cdef Sizes z = sizes_of(config, training_format(precision), 0)
        return max(end for _, _, end in _packs(config, adapter, &z).values())

    @staticmethod
    def workspace_size(config, str precision="float32", rows=None, adapter=None,
                       bint recompute=False) -> int:
        """Return the bytes of activations and scratch that `compute` needs.

        `rows` is the most rows (sequences x positions) of one call; None is for any batch.
        """
        rank = 0 if adapter is None else adapter.rank
        cdef Sizes z = sizes_of(config, training_format(precision), rank)
        return 4 * placed(&z, recompute, most_rows(&z, rows), NULL).size

    @staticmethod
    def side_size(config, rows=None) -> int:
        """Return the floats of a side buffer for calls of at most `rows` rows (see `compute`).

        It holds the gradients of positions and vectors, a row of the token embeddings' for each
        token, and the head's where a call can bring more rows than a block of it has.  Models with
        adapters have no use for one.
        """
        table = parameter_table(config)
        cdef Sizes z = sizes_of(config, training_format("float32"), 0)
        vectors = table.size - min(p.offset for p in table.parameters if len(p.shape) == 1)
        places = 0 if table.find(Role.POSITIONS) is None else z.T
        cdef int64_t R = most_rows(&z, rows)
        return vectors + (places + R + (z.V if head_apart(z.V, R) else 0)) * z.C

    @staticmethod
    def side_rows(config) -> int:
        """Return the most rows (sequences x positions) that a call with a side buffer takes.

        They are those of one chunk, whose gradients of matrices are each one sum.
        """
        return max(<int64_t>CHUNK, <int64_t>config.seq_len)

    @staticmethod
    def allocate(config, float[::1] weights, *, str precision="float32",
                 const float[:, ::1] features=None, adapter=None,
                 float[::1] adapters=None, bint recompute=False) -> Transformer:
        """Return a model over `weights` with buffers of its own, packed and ready."""
        packed = aligned_empty((Transformer.packed_size(config, precision, adapter),))
        workspace = aligned_empty(
            (Transformer.workspace_size(config, precision, adapter=adapter, recompute=recompute),),
            np.uint8)
        model = Transformer(config, weights, packed, workspace, precision=precision,
                            features=features, adapter=adapter, adapters=adapters,
                            recompute=recompute)
        model.pack()
        return model

    @property
    def segment_count(self) -> int:
        """Number of segments of the flat buffer of what is trained."""
        return self._segments.shape[0]

    def pack(self) -> None:
        """Refresh the packed panels of every matrix from the weights."""
        self.pack_frozen()
        for index in range(self.segment_count):
            self.pack_segment(index)

    def pack_frozen(self) -> None:
        """Refresh the packed panels of the matrices that are not trained."""
        cdef int64_t index
        with nogil:
            for index in range(self._frozen.shape[0]):
                self.pack_segment_nogil(<const Segment*>&self._frozen[index, 0], &self._weights[0])

    def pack_segment(self, int64_t index) -> None:
        """Refresh the packed panels of one segment (see `params.Segment`)."""
        if not 0 <= index < self._segments.shape[0]:
            raise IndexError(f"segment {index} of {self._segments.shape[0]}")
        with nogil:
            self.pack_segment_nogil(<const Segment*>&self._segments[index, 0], &self._trained[0])

    cdef void pack_segment_nogil(self, const Segment* s, const float* flat) noexcept nogil:
        cdef const NumberFormat* f = self.z.f
        cdef float* packed
        if s.packed < 0:
            return
        packed = &self._packed[s.packed]
        primitives().repack(f, s.rows, s.N, flat + s.start,
                            packed + s.row // f.elements * CL_PANEL, words(f, s.K),
                            &self._packed[s.packed_t] + s.row * words(f, s.N), words(f, s.N),
                            store_of(self._packed.shape[0], packed))

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

    def record(self, MarkRow row) -> None:
        """Let `compute` mark in a row what its passes take."""
        self._mark_row = row  # keeps the memory alive
        self._marks = &row.marks

    def compute(self, const int32_t[:, ::1] tokens, float[::1] grads, *, double scale,
                bint accumulate=False, uint64_t seed=0, uint64_t step=0,
                uint64_t first_sequence=0, float[::1] side=None, double epsilon=0.0,
                const int32_t[:, ::1] targets=None) -> float:
        """Run tokens [n, t + 1] forward and backward.

        The gradients of `scale` times the summed loss are stored in grads [size] (OUT), or added
        to them (INOUT) with `accumulate`; `size` is that of what is trained.  Dropout is a function
        of (seed, step, sequence number, place); `first_sequence` is the number of the first of
        these n sequences.
        With `side` [side_size(config, rows)], the gradients are added to `grads` as one number
        each: every element of `grads` is rounded once, as if this call's gradients had been
        computed apart and then added.  It takes the sequences of one chunk, and so at most
        side_rows(config) rows.

        With `epsilon` from 0 to below 1, the loss that the gradients are of is the cross-entropy
        against (1 - epsilon) onehot(target) + epsilon times the target's neighbors (see
        `set_neighbors`); its sum is `smoothed_loss` afterwards.

        `targets` [n, t] stand in for the tokens that follow; -1 is a place that counts for nothing,
        in the loss and in its gradients.

        Returns the sum of -ln p over the targets, in nats, whatever `epsilon`.
        """
        cdef int64_t n = tokens.shape[0], t = tokens.shape[1] - 1
        self._check_tokens(tokens, t)
        cdef Gradients g
        cdef int64_t vectors = self._vectors_size
        cdef bint frozen = self.z.rank > 0
        cdef int64_t places = self.z.T * self.z.C if self._positions >= 0 and not frozen else 0
        cdef float* saved = NULL
        cdef float* whole_head = NULL
        if grads.shape[0] != self._size:
            raise ValueError(f"grads has {grads.shape[0]} floats, the model needs {self._size}")
        g.matrices = &grads[0]
        g.tokens = g.head = g.positions = NULL
        if frozen:
            if side is not None:
                raise ValueError("side has no use with adapters")
            g.vectors = &self._unread[0] - self._vectors
        else:
            g.vectors = &grads[0]
            g.tokens, g.head = &grads[self._tokens], &grads[self._head]
            g.positions = &grads[self._positions] if places else NULL
        if side is not None:
            if side.shape[0] != Transformer.side_size(self.config, self._rows):
                raise ValueError(f"side has {side.shape[0]} floats")
            if accumulate or n > chunk_sequences(t):
                raise ValueError(
                    f"side takes {chunk_sequences(t)} sequences of {t} at most, and no accumulate")
            g.vectors = &side[0] - self._vectors
            g.positions = &side[vectors] if places else NULL
            saved = &side[vectors] + places
            if head_apart(self.z.V, n * t):
                whole_head = saved + self._rows * self.z.C
                g.head = whole_head
                if self._head == self._tokens:  # which are then apart as well
                    g.tokens, saved = whole_head, NULL
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
        cdef int32_t[::1] wanted = self._wanted(tokens, targets)
        cdef double loss = 0.0, smoothed = 0.0, part = 0.0
        cdef uint64_t key = mix(mix(0, seed), step)
        cdef StoreMode store = CL_ADD if accumulate or side is not None else CL_STORE
        cdef int64_t start = 0, count
        cdef float* workspace = <float*>&self._workspace[0]
        cdef Dropping drop
        cdef Buffers b
        with nogil:
            begin_thread()
            mark_begin(self._marks)
            if not accumulate:
                memset(g.vectors + self._vectors, 0, vectors * sizeof(float))
                if places:
                    memset(g.positions, 0, places * sizeof(float))
                # Where the head has a matrix of its own, it stores none of them.
                if self._head != self._tokens and side is None and not frozen:
                    memset(g.tokens, 0, self.z.V * self.z.C * sizeof(float))
            if saved != NULL:
                set_aside(&ids[0], n * t, self.z.C, g.tokens, saved)
            while start < n:
                count = min(n - start, chunk_sequences(t))
                drop = self.dropping(key, first_sequence + start, t)
                b = placed(&self.z, self._lean, count * t, workspace)
                b.marks = self._marks
                self.forward(&ids[start * t], count, t, &drop, &b)
                loss += head_loss(&self.z, self.head, count * t, &wanted[start * t],
                                  <float>scale, True, g.head,
                                  CL_STORE if whole_head != NULL else store, spread, &part, &b)
                smoothed += part
                mark(b.marks, HEAD)
                self.backward(&ids[start * t], count, t, &g, store, &drop, &b)
                store = CL_ADD
                start += count
            if saved != NULL:
                add_back(&ids[0], n * t, self.z.C, g.tokens, saved)
            if whole_head != NULL:
                primitives().add(self.z.V * self.z.C, &grads[self._head], whole_head,
                                 &grads[self._head])
            if side is not None:
                if places:
                    primitives().add(places, &grads[self._positions], g.positions,
                                     &grads[self._positions])
                primitives().add(vectors, &grads[self._vectors], g.vectors + self._vectors,
                                 &grads[self._vectors])
            mark(self._marks, D_EMBED)
            end_thread()
        self.smoothed_loss = smoothed if epsilon > 0.0 else loss
        return loss

    def evaluate(self, const int32_t[:, ::1] tokens,
                 const int32_t[:, ::1] targets=None) -> float:
        """Return the sum of -ln p over the targets of tokens [n, t + 1], in nats.

        `targets` as in `compute`.
        """
        cdef int64_t n = tokens.shape[0], t = tokens.shape[1] - 1
        self._check_tokens(tokens, t)
        cdef int32_t[::1] ids = np.ascontiguousarray(tokens[:, :t]).reshape(-1)
        cdef int32_t[::1] wanted = self._wanted(tokens, targets)
        cdef double loss = 0.0
        cdef int64_t start = 0, count
        cdef Buffers b
        with nogil:
            begin_thread()
            while start < n:
                count = min(n - start, chunk_sequences(t))
                b = placed(&self.z, self._lean, count * t, <float*>&self._workspace[0])
                self.forward(&ids[start * t], count, t, NULL, &b)
                loss += head_loss(&self.z, self.head, count * t, &wanted[start * t], 0.0, False,
                                  NULL, CL_STORE, NULL, NULL, &b)
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
        cdef Buffers b
        with nogil:
            begin_thread()
            while start < n:
                count = min(n - start, chunk_sequences(t))
                R = count * t
                b = placed(&self.z, self._lean, R, <float*>&self._workspace[0])
                self.forward(&ids[start * t], count, t, NULL, &b)
                head_logits(&self.z, self.head, R, shared(&b, FINAL_IN), &view[start, 0, 0])
                start += count
            end_thread()
        return out

    def _wanted(self, const int32_t[:, ::1] tokens,
                const int32_t[:, ::1] targets):
        # What every row of tokens [n, t + 1] is to predict; -1: nothing.
        cdef int64_t n = tokens.shape[0], t = tokens.shape[1] - 1, i, j
        if targets is None:
            return np.ascontiguousarray(tokens[:, 1:]).reshape(-1)
        if targets.shape[0] != n or targets.shape[1] != t:
            raise ValueError(
                f"targets is [{targets.shape[0]}, {targets.shape[1]}], the tokens need [{n}, {t}]")
        for i in range(n):
            for j in range(t):
                if not -1 <= targets[i, j] < self.z.V:
                    raise ValueError(
                        f"targets holds {targets[i, j]}, outside the vocabulary of {self.z.V}")
        return np.array(targets, dtype=np.int32).reshape(-1)

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

    cdef Dropping dropping(self, uint64_t key, uint64_t first_sequence, int64_t t) noexcept nogil:
        cdef Dropping d
        d.threshold, d.scale = self._threshold, self._keep_scale
        d.key, d.first_sequence = key, first_sequence
        d.first = first_sequence * t * self.z.C
        return d

    cdef Crystal crystal(self, const int32_t* ids, int64_t layer) noexcept nogil:
        cdef Crystal c
        c.ids = ids
        c.features = c.lambdas = NULL
        if self.z.crystalline:
            c.features = &self._features[0, 0]
            c.lambdas = self.layers[layer].attention.lambdas
        return c

    cdef void forward(self, const int32_t* ids, int64_t n, int64_t t, const Dropping* d,
                      const Buffers* b) noexcept nogil:
        # d NULL: nothing is dropped.
        cdef const NumberFormat* f = self.z.f
        cdef int64_t R = n * t, C = self.z.C, layer
        cdef const float* w = &self._weights[0]
        cdef float* x = of_layer(b, X, 0)
        cdef Buffers here
        cdef Dropping none
        memset(&none, 0, sizeof(none))
        if d == NULL:
            d = &none
        primitives().embed(R, t, C, ids, w + self._tokens,
                           w + self._positions if self._positions >= 0 else NULL, x)
        if d.threshold:
            drop(d, 0, EMBEDDING, R * C, 0, x, x)
        mark(b.marks, EMBED)
        for layer in range(self.z.L):
            here = of_this_layer(b, self._lean, layer)
            self.layer_forward(ids, n, t, layer, False, d, &here)
        normalize(self.final, R, of_layer(b, X, self.z.L), shared(b, FINAL), shared(b, MEAN_F),
                  shared(b, RSTD_F))
        if converts(f):
            f.to_operand(R, C, shared(b, FINAL), C, shared(b, FINAL_IN))
        mark(b.marks, NORM)

    cdef void layer_forward(self, const int32_t* ids, int64_t n, int64_t t, int64_t layer,
                            bint again, const Dropping* d, const Buffers* b) noexcept nogil:
        # From X of a layer to X of the next one, which is there already when it is done `again`.
        cdef const NumberFormat* f = self.z.f
        cdef int64_t R = n * t, C = self.z.C, wc = words(f, C), wj = words(f, self.z.F)
        cdef int64_t row = 0, rows
        cdef const Layer* y = &self.layers[layer]
        cdef const float* x = of_layer(b, X, layer)
        cdef Crystal crystal = self.crystal(ids, layer)
        while row < R:
            rows = min(f.pass_rows, R - row)
            normalize_operand(f, &y.norm1, rows, x + row * C, shared(b, NARROW),
                              of_layer(b, NORM1, layer) + row * wc,
                              of_layer(b, MEAN1, layer) + row, of_layer(b, RSTD1, layer) + row)
            mark(b.marks, NORM)
            project(&self.z, &y.attention, layer, row, rows, t, b)
            mark(b.marks, QKV_PASS)
            row += rows
        attend(&self.z, &y.attention, layer, n, t, &crystal, d, b)
        mark(b.marks, ATTENTION)
        row = 0
        while row < R:
            rows = min(f.pass_rows, R - row)
            self.after_attention(layer, row, rows, d, b)
            mark(b.marks, OUT)
            normalize_operand(f, &y.norm2, rows, of_layer(b, MID, layer) + row * C,
                              shared(b, NARROW), of_layer(b, NORM2, layer) + row * wc,
                              of_layer(b, MEAN2, layer) + row, of_layer(b, RSTD2, layer) + row)
            mark(b.marks, NORM)
            expand(&self.z, &y.mlp, layer, row, rows, b)
            if not again or self.z.rank:  # what an adapter keeps of the last product is wanted
                self.add_branch(layer, MLP_OUT, row, rows, of_layer(b, ACT, layer) + row * wj,
                                of_layer(b, MID, layer), of_layer(b, X, layer + 1), d, b)
            mark(b.marks, DOWN)
            row += rows

    cdef void after_attention(self, int64_t layer, int64_t row, int64_t rows, const Dropping* d,
                              const Buffers* b) noexcept nogil:
        # MID = X + drop(att out + bias)
        cdef const NumberFormat* f = self.z.f
        cdef Kept whole = kept(f, of_layer(b, ATT, layer), self.z.W)
        cdef Kept att = kept_part(&whole, row, 0)
        cdef const float* operand = row_operand(
            f, rows, self.z.W, &att, of_layer(b, ATT_IN, layer) + row * words(f, self.z.W))
        self.add_branch(layer, ATTENTION_OUT, row, rows, operand, of_layer(b, X, layer),
                        of_layer(b, MID, layer), d, b)

    cdef void add_branch(self, int64_t layer, int site, int64_t row, int64_t rows,
                         const float* operand, const float* x, float* out, const Dropping* d,
                         const Buffers* b) noexcept nogil:
        # out = x + drop(operand w + bias), of rows row .. of both; w is the branch's last matrix.
        cdef int64_t n = rows * self.z.C, start = row * self.z.C
        cdef const Matrix* m = last_matrix(&self.layers[layer], site)
        linear(self.z.f, rows, m, operand, NULL if d.threshold else x + start, out + start)
        if self.z.rank:
            adapt(self.z.f, layer, row, rows, m, operand,
                  LOW_OUT if site == ATTENTION_OUT else LOW_DOWN, out + start, b)
        if d.threshold:
            drop(d, layer, site, n, start, out + start, out + start)
            primitives().add(n, out + start, x + start, out + start)

    cdef void backward(self, const int32_t* ids, int64_t n, int64_t t, const Gradients* g,
                       StoreMode store, const Dropping* d, const Buffers* all) noexcept nogil:
        # From the final norm's in DATT down to the embeddings.  Vectors' gradients always add.
        cdef Buffers here = all[0]
        cdef const Buffers* b = &here
        cdef const NumberFormat* f = self.z.f
        cdef int64_t R = n * t, C = self.z.C, layer, row, rows
        cdef float* dx = shared(b, DX)
        cdef float* narrow = shared(b, NARROW)
        cdef float* dlambdas
        cdef const float* left
        cdef const Layer* y
        cdef Crystal crystal
        cdef Kept datt, all_datt
        normalize_backward(self.final, R, shared(b, DATT), of_layer(b, X, self.z.L),
                           shared(b, MEAN_F), shared(b, RSTD_F), dx, False, g.vectors)
        mark(b.marks, D_NORM)
        for layer in range(self.z.L - 1, -1, -1):
            y = &self.layers[layer]
            here = of_this_layer(all, self._lean, layer)
            if self._lean and layer < self.z.L - 1:  # the last one's are still there
                self.layer_forward(ids, n, t, layer, True, d, b)
            # X of the next layer = MID + drop(ACT down + bias), ACT of NORM2 up + bias
            row = 0
            while row < R:
                rows = min(f.pass_rows, R - row)
                left = self.branch_gradient(layer, MLP_OUT, R, row, rows, g, d, b)
                mark(b.marks, PACKING)
                expand_backward(&self.z, &y.mlp, layer, R, row, rows, left, b, g.vectors)
                normalize_backward(&y.norm2, rows, narrow, of_layer(b, MID, layer) + row * C,
                                   of_layer(b, MEAN2, layer) + row,
                                   of_layer(b, RSTD2, layer) + row, dx + row * C, True, g.vectors)
                mark(b.marks, D_NORM)
                row += rows
            self.matrix_gradient(layer, R, &y.mlp.down, ACT, LOW_DOWN, DY_PACKED, LOW_DY_PACKED, g,
                                 store, b)
            mark(b.marks, W_DOWN)
            self.matrix_gradient(layer, R, &y.mlp.up, NORM2, LOW_UP, WIDE_PACKED, LOW_WIDE_PACKED,
                                 g, store, b)
            mark(b.marks, W_UP)
            # MID = X + drop(ATT out + bias), QKV of NORM1 qkv + bias
            all_datt = kept(f, shared(b, DATT), self.z.W)
            row = 0
            while row < R:
                rows = min(f.pass_rows, R - row)
                left = self.branch_gradient(layer, ATTENTION_OUT, R, row, rows, g, d, b)
                mark(b.marks, PACKING)
                datt = kept_part(&all_datt, row, 0)
                self.attention_gradient(layer, R, row, rows, left, &datt, b)
                mark(b.marks, D_OUT)
                row += rows
            self.matrix_gradient(layer, R, &y.attention.out, ATT_IN, LOW_OUT, DY_PACKED,
                                 LOW_DY_PACKED, g, store, b)
            mark(b.marks, W_OUT)
            crystal = self.crystal(ids, layer)
            dlambdas = NULL
            if crystal.features != NULL and not self.freeze_lambda:
                dlambdas = g.vectors + y.attention.lambdas_at
            attend_backward(&self.z, &y.attention, layer, n, t, &crystal, d, b, dlambdas)
            mark(b.marks, D_ATTENTION)
            row = 0
            while row < R:
                rows = min(f.pass_rows, R - row)
                project_backward(&self.z, &y.attention, layer, R, row, rows, t, b, g.vectors)
                normalize_backward(&y.norm1, rows, narrow, of_layer(b, X, layer) + row * C,
                                   of_layer(b, MEAN1, layer) + row,
                                   of_layer(b, RSTD1, layer) + row, dx + row * C, True, g.vectors)
                mark(b.marks, D_NORM)
                row += rows
            self.matrix_gradient(layer, R, &y.attention.qkv, NORM1, LOW_QKV, WIDE_PACKED,
                                 LOW_WIDE_PACKED, g, store, b)
            mark(b.marks, W_QKV)
        if g.tokens == NULL:
            return
        if d.threshold:
            drop(d, 0, EMBEDDING, R * C, 0, dx, dx)
        primitives().embed_backward(R, t, C, ids, dx, g.tokens, g.positions)
        mark(b.marks, D_EMBED)

    cdef void attention_gradient(self, int64_t layer, int64_t R, int64_t row, int64_t rows,
                                 const float* left, const Kept* datt,
                                 const Buffers* b) noexcept nogil:
        # From the operand of the branch's gradient to that of attention's output, which is kept.
        cdef const NumberFormat* f = self.z.f
        cdef const Matrix* m = &self.layers[layer].attention.out
        cdef float* dx
        if not self.z.rank:
            multiply_kept(f, rows, m.K, m.N, left, words(f, m.N), m.packed_t, NULL, datt)
            return
        dx = float_rows(datt) if f.keeps == NULL else shared(b, STRIP)
        input_gradient(f, rows, m, left, dx)
        adapt_backward(f, R, row, rows, m, left, LOW_DY_PACKED, dx, b)
        if f.keeps != NULL:
            f.keeps.keep(rows, m.K, dx, m.K, datt)

    cdef void matrix_gradient(self, int64_t layer, int64_t R, const Matrix* m, Buffer operand,
                              Buffer low, Buffer packed, Buffer low_packed, const Gradients* g,
                              StoreMode store, const Buffers* b) noexcept nogil:
        # Of a matrix of a layer, or of its adapter.
        cdef const float* x = of_layer(b, operand, layer)
        if self.z.rank:
            adapter_gradient(self.z.f, layer, R, m, x, low, shared(b, packed), low_packed,
                             g.matrices, store, b)
        else:
            weight_gradient(self.z.f, R, m, x, shared(b, TURNED), shared(b, packed), g.matrices,
                            store)

    cdef const float* branch_gradient(self, int64_t layer, int site, int64_t R, int64_t row,
                                      int64_t rows, const Gradients* g, const Dropping* d,
                                      const Buffers* b) noexcept nogil:
        # The operand of the gradient of a branch's output, and its panels in DY_PACKED.
        cdef int64_t C = self.z.C
        cdef float* dy = shared(b, DX) + row * C
        if d.threshold:
            drop(d, layer, site, rows * C, row * C, dy, shared(b, NARROW))
            dy = shared(b, NARROW)
        return output_gradient(self.z.f, R, row, rows, last_matrix(&self.layers[layer], site), dy,
                               g.vectors, shared(b, DY_PACKED), shared(b, OPERAND))
