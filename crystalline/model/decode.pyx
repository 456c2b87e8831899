"""A model that writes: weights of its own, packed one way, and the keys and values of many texts.

A slot holds one text.  `extend` appends any number of tokens to any set of slots in one pass over
the weights, so that prompts and steps of many texts share it.  A team of threads computes a pass
together: each takes a share of the columns of every product and of the rows between them, and they
meet at a barrier after each.

The bits of a slot's logits depend on its tokens only: not on the other slots of a pass, on how the
tokens were cut into calls, or on the threads.  Every row is computed as if it were alone.

Positions end at `config.seq_len`: what happens to longer texts is the caller's affair.
"""

import contextlib
import mmap

import numpy as np

from crystalline._kernels.memory import aligned_empty
from crystalline.model.architectures.table import Role
from crystalline.model.params import parameter_table

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy

from crystalline._kernels.attention cimport CRYSTAL_FEATURES
from crystalline._kernels.cache cimport (
    KeyValues, Queries, append, attend, attend_scratch, attend_units, copy_kept, key_value_words,
)
from crystalline._kernels.formats cimport (
    converts, grouped, number_format, packed_words, take_column, words,
)
from crystalline._kernels.isa cimport CL_STORE, NumberFormat, primitives
from crystalline._kernels.matmul cimport multiply_panels, pack, pack_t, panel_count
from crystalline._kernels.team cimport Team, TeamThreads, team_barrier, team_run
from crystalline.model.layers.attention cimport turn_group
from crystalline.model.layers.bind cimport Binding, expect_features
from crystalline.model.layers.mlp cimport activate
from crystalline.model.layers.norm cimport normalize_operand
from crystalline.model.layers.table cimport Layer, Matrix, Norm, Sizes

cdef enum:
    CHUNK = 512       # most tokens of one pass
    STRIP_ROWS = 16   # rows that become an operand right after they are computed
    PAGE = 1024       # floats of a page of memory
    HUGE_BYTES = 4 * 1024 * 1024  # from which on memory is asked for in huge pages
    SCORED_ROWS = 64  # rows whose logits exist at once where every token is scored

# The head chooses among all tokens by small differences: four bits are too few for it, as in Q4_0
# files, whose heads are Q8_0.
_HEAD_FORMATS = {"int4": "int8g32"}
_CACHE_FORMATS = ("bf16", "float32")
_PART = np.dtype([(name, np.int64) for name in ("slot", "first", "n", "row")])

# Some tokens of one slot in a pass.
cdef struct Part:
    int64_t slot, first, n, row  # at positions first .., in rows row ..

# What the members of a team share in a pass over R rows.
cdef struct Pass:
    const Sizes* z
    const Layer* layers
    const Norm* final
    const Matrix* head
    const NumberFormat* head_format
    const NumberFormat* tokens_format
    const float* tokens        # panels whose columns are the token embeddings
    const float* positions     # [T, C], or NULL
    TeamThreads* team
    const KeyValues* kept      # [L, slots]
    int64_t slots
    int64_t R, parts
    const int32_t* ids         # [R]
    const Part* part           # [parts]
    int64_t wanted             # rows whose logits are wanted
    const int64_t* wants       # [wanted]
    const int32_t* targets     # [wanted]: score them instead; NULL: return the logits
    double* losses             # [wanted]
    float* logits              # [wanted, V], or a block of rows that are scored
    const float* features      # [V, F] of crystalline attention, or NULL
    float* phi                 # [slots, T, F]
    float* similar             # [R, T]
    float* x                   # [R, C] the residual stream
    float* operand             # [R, C, W or F] operand
    float* qkv                 # [R, QKV]
    float* att                 # [R, W]
    float* up                  # [R, U]
    float* strips              # [members, STRIP_ROWS, C or F]
    float* scratch             # [members, scratch_words]
    int64_t strip_floats, scratch_floats


cdef inline void share(int64_t n, int64_t unit, int member, int members, int64_t* start,
                       int64_t* stop) noexcept nogil:
    # A member's part of n things in whole units.
    cdef int64_t units = (n + unit - 1) // unit
    start[0] = min(n, units * member // members * unit)
    stop[0] = min(n, units * (member + 1) // members * unit)


cdef void product(const NumberFormat* f, int member, int members, int64_t rows, const Matrix* m,
                  const float* operand, const float* residual, float* y) noexcept nogil:
    # A member's columns of y [rows, N] = x w + bias (+ residual).
    cdef int64_t start, stop
    share(panel_count(m.N), 1, member, members, &start, &stop)
    multiply_panels(f, start, stop, rows, m.N, m.K, operand, words(f, m.K), m.packed, y, m.N,
                    m.bias, residual, CL_STORE)


cdef void norm_rows(const Pass* p, const NumberFormat* f, int member, int members, const Norm* n,
                    int64_t rows, const float* x, const int64_t* which,
                    float* operand) noexcept nogil:
    # A member's rows of the operand of norm(x), or of norm of the rows `which` of x.
    cdef int64_t start, stop, count, i, C = n.C, ld = words(f, C)
    cdef float* strip = p.strips + member * p.strip_floats
    cdef const float* rows_x
    cdef float mean[STRIP_ROWS]
    cdef float rstd[STRIP_ROWS]
    share(rows, STRIP_ROWS, member, members, &start, &stop)
    while start < stop:
        count = min(<int64_t>STRIP_ROWS, stop - start)
        rows_x = x + start * C
        if which != NULL:
            rows_x = strip
            for i in range(count):
                memcpy(strip + i * C, x + which[start + i] * C, C * sizeof(float))
        normalize_operand(f, n, count, rows_x, strip, operand + start * ld, mean, rstd)
        start += count


cdef inline void to_operand(const NumberFormat* f, int64_t rows, int64_t K, const float* x,
                            int64_t ldx, float* out) noexcept nogil:
    cdef int64_t i
    if converts(f):
        f.to_operand(rows, K, x, ldx, out)
        return
    for i in range(rows):
        memcpy(out + i * K, x + i * ldx, K * sizeof(float))


cdef void begin_rows(const Pass* p, int member, int members) noexcept nogil:
    # The embeddings of a member's rows, and what crystalline attention adds to their scores: K of a
    # part's tokens and all that its slot holds.
    cdef int64_t start, stop, i, row, position, C = p.z.C, T = p.z.T
    cdef const Part* part
    cdef float* phi
    cdef float* x
    share(p.R, STRIP_ROWS, member, members, &start, &stop)
    for i in range(p.parts):
        part = &p.part[i]
        phi = p.phi + part.slot * T * CRYSTAL_FEATURES
        for row in range(max(start, part.row), min(stop, part.row + part.n)):
            position, x = part.first + row - part.row, p.x + row * C
            take_column(p.tokens_format, C, p.tokens, p.ids[row], x)
            if p.positions != NULL:
                primitives().add(C, x, p.positions + position * C, x)
            if p.features != NULL:
                primitives().row_dots(part.first + part.n, CRYSTAL_FEATURES, phi, CRYSTAL_FEATURES,
                                      phi + position * CRYSTAL_FEATURES, 0, p.similar + row * T)


cdef void keep_heads(const Pass* p, int member, int members, int64_t layer) noexcept nogil:
    # Turns q and k and keeps k and v; a unit is a part's rows of one head of keys.
    cdef const Layer* y = &p.layers[layer]
    cdef int64_t G = p.z.heads.G, D = p.z.heads.D, keys_at = p.z.W, ld = p.z.QKV, unit
    cdef const Part* part
    cdef float* rows
    unit = member
    while unit < p.parts * G:
        part = &p.part[unit // G]
        rows = p.qkv + part.row * ld
        turn_group(&y.attention, part.n, part.first, unit % G, rows, ld)
        append(&p.kept[layer * p.slots + part.slot], part.first, part.n, rows + keys_at,
               rows + keys_at + G * D, ld, unit % G, 1)
        unit += members


cdef void attend_rows(const Pass* p, int member, int members, int64_t layer) noexcept nogil:
    cdef const Layer* y = &p.layers[layer]
    cdef float* scratch = p.scratch + member * p.scratch_floats
    cdef int64_t i, unit, units, done = 0
    cdef Queries q
    cdef const Part* part
    for i in range(p.parts):
        part = &p.part[i]
        q.kept = &p.kept[layer * p.slots + part.slot]
        q.n, q.first, q.H, q.window = part.n, part.first, p.z.heads.H, p.z.heads.window
        q.q, q.ldq = p.qkv + part.row * p.z.QKV, p.z.QKV
        q.similar, q.ld_similar, q.lambdas = NULL, p.z.T, NULL
        if p.features != NULL:
            q.similar, q.lambdas = p.similar + part.row * p.z.T, y.attention.lambdas
        q.out, q.ldo = p.att + part.row * p.z.W, p.z.W
        q.spans, q.partials = 1, NULL
        units = attend_units(&q)
        for unit in range(units - 1, -1, -1):  # later units take longer
            if (done + unit) % members == member:
                attend(&q, unit, scratch)
        done += units


cdef void operand_rows(const Pass* p, int member, int members, int64_t K,
                       const float* x) noexcept nogil:
    cdef int64_t start, stop
    share(p.R, STRIP_ROWS, member, members, &start, &stop)
    if start < stop:
        to_operand(p.z.f, stop - start, K, x + start * K, K,
                   p.operand + start * words(p.z.f, K))


cdef void activate_rows(const Pass* p, int member, int members, int64_t layer) noexcept nogil:
    cdef const Layer* y = &p.layers[layer]
    cdef int64_t start, stop, count, U = p.z.U, F = p.z.F
    cdef float* strip = p.strips + member * p.strip_floats
    share(p.R, STRIP_ROWS, member, members, &start, &stop)
    while start < stop:
        count = min(<int64_t>STRIP_ROWS, stop - start)
        activate(&y.mlp, count, p.up + start * U, U, strip)
        to_operand(p.z.f, count, F, strip, F, p.operand + start * words(p.z.f, F))
        start += count


cdef void compute(int member, int members, void* argument) noexcept nogil:
    # The whole pass, as every member of the team does it.
    cdef const Pass* p = <const Pass*>argument
    cdef int64_t layer
    cdef const Layer* y
    begin_rows(p, member, members)
    for layer in range(p.z.L):
        y = &p.layers[layer]
        norm_rows(p, p.z.f, member, members, &y.norm1, p.R, p.x, NULL, p.operand)
        team_barrier(p.team)
        product(p.z.f, member, members, p.R, &y.attention.qkv, p.operand, NULL, p.qkv)
        team_barrier(p.team)
        keep_heads(p, member, members, layer)
        team_barrier(p.team)
        attend_rows(p, member, members, layer)
        team_barrier(p.team)
        operand_rows(p, member, members, p.z.W, p.att)
        team_barrier(p.team)
        product(p.z.f, member, members, p.R, &y.attention.out, p.operand, p.x, p.x)
        team_barrier(p.team)
        norm_rows(p, p.z.f, member, members, &y.norm2, p.R, p.x, NULL, p.operand)
        team_barrier(p.team)
        product(p.z.f, member, members, p.R, &y.mlp.up, p.operand, NULL, p.up)
        team_barrier(p.team)
        activate_rows(p, member, members, layer)
        team_barrier(p.team)
        product(p.z.f, member, members, p.R, &y.mlp.down, p.operand, p.x, p.x)
        team_barrier(p.team)
    norm_rows(p, p.head_format, member, members, p.final, p.wanted, p.x, p.wants, p.operand)
    team_barrier(p.team)
    if p.targets == NULL:
        product(p.head_format, member, members, p.wanted, p.head, p.operand, NULL, p.logits)
    else:
        score_rows(p, member, members)


cdef void score_rows(const Pass* p, int member, int members) noexcept nogil:
    cdef int64_t V = p.z.V, start = 0, first, stop, count, i
    while start < p.wanted:
        count = min(<int64_t>SCORED_ROWS, p.wanted - start)
        product(p.head_format, member, members, count, p.head,
                p.operand + start * words(p.head_format, p.z.C), NULL, p.logits)
        team_barrier(p.team)
        share(count, 1, member, members, &first, &stop)
        for i in range(first, stop):
            p.losses[start + i] = primitives().cross_entropy(
                1, V, p.logits + i * V, V, p.targets + start + i, 0.0, False, NULL, NULL)
        team_barrier(p.team)
        start += count


cdef class Decoder:
    """One model, packed for inference, and `slots` texts.

    Parameters
    ----------
    config : ModelConfig
    weights : float32 [parameter_table(config).size], or a function from a `Parameter` to its
        float32 array, which is called once for each, so that they need not all be in memory
    slots : texts held at once
    precision : number format of the weights
    cache : "bf16" or "float32", of keys and values
    threads : that compute together; 0: one for each core that may be used
    features : float32 [V, 16], what crystalline attention knows of the tokens

    >>> import numpy as np
    >>> from crystalline.model.config import ModelConfig
    >>> from crystalline.model.params import initialize, parameter_table
    >>> config = ModelConfig(vocab_size=11, seq_len=8, num_layers=1, num_heads=2, embed_dim=16)
    >>> weights = np.zeros(parameter_table(config).size, np.float32)
    >>> initialize(config, weights, seed=1)
    >>> decoder = Decoder(config, weights, slots=2)
    >>> decoder.extend([0, 1], [[3, 1, 4], [1]]).shape, decoder.length(0), decoder.length(1)
    ((2, 11), 3, 1)
    """

    cdef readonly object config
    cdef readonly str precision
    cdef readonly str cache
    cdef readonly int slots
    cdef Binding _binding
    cdef NumberFormat _format        # the precision's row; activations are kept as float32
    cdef NumberFormat _head_format   # the head's
    cdef Team _team
    cdef list _memory                # vectors that the binding points into
    cdef float[::1] _panels          # all matrices
    cdef int64_t _panels_used
    cdef const float[:, ::1] _positions  # [T, C], where some are learned
    cdef const float[:, ::1] _features
    cdef char[::1] _kept             # [L, slots + 1] of KeyValues; the last slot is for scores
    cdef int64_t[::1] _length        # [slots + 1]
    cdef float[::1] _workspace, _phi
    cdef float* _scored              # logits of rows that are scored
    cdef Pass _pass

    def __init__(self, config, weights, *, int slots=1, str precision="float32",
                 str cache="bf16", int threads=0, const float[:, ::1] features=None):
        if slots < 1:
            raise ValueError(f"slots is {slots}: at least one text is needed")
        if cache not in _CACHE_FORMATS:
            raise ValueError(f"cache is {cache!r}, expected 'bf16' or 'float32'")
        self.config, self.precision, self.cache, self.slots = config, precision, cache, slots
        self._format = number_format(precision)[0]
        self._head_format = number_format(_HEAD_FORMATS.get(precision, precision))[0]
        self._format.keeps = self._head_format.keeps = NULL
        if self._format.take_column == NULL:
            raise ValueError(f"precision is {precision!r}, whose panels cannot be read back")
        self._binding = Binding(config)
        self._binding.describe(&self._format, 0)
        self._memory = []
        self._features = expect_features(config, features)
        self._take_weights(weights)
        self._team = Team(threads)
        self._make_cache()
        self._make_workspace()

    def _take_weights(self, weights):
        # Pack every matrix and copy the rest, one tensor after the other.
        cdef const float* packed
        table = parameter_table(self.config)
        tied = table.find(Role.HEAD) is None
        # In one piece, so that it is in huge pages: each weight is read once for a token, and small
        # pages' addresses are looked up in memory, too.
        self._panels = _lazy_zeros(sum(
            self._room_of(p) for p in table.parameters
            if len(p.shape) > 1 and p.role != Role.POSITIONS))
        self._panels_used = 0
        for p in table.parameters:
            if callable(weights):
                values = weights(p)
            else:
                values = weights[p.offset:p.offset + p.size].reshape(p.shape)
            if values.shape != p.shape or values.dtype != np.float32:
                raise ValueError(
                    f"{p.name} is {values.dtype}{list(values.shape)}, "
                    f"the model needs float32{list(p.shape)}")
            if len(p.shape) == 1:
                self._take_vector(p, values)
            elif p.role == Role.POSITIONS:
                self._positions = values.copy()
                self._pass.positions = &self._positions[0, 0]
            else:
                packed = self._packed(p, values)
                if p.role == Role.TOKENS:
                    self._pass.tokens, self._pass.tokens_format = packed, self._format_of(p)
                if p.role != Role.TOKENS or tied:
                    self._binding.place_matrix(p.role, p.layer, -1, packed, NULL)

    def _take_vector(self, p, values):
        array = aligned_empty(values.shape)
        array[:] = values
        cdef float[::1] own = array
        self._memory.append(own)
        self._binding.place_vector(p.role, p.layer, -1, &own[0])

    cdef const NumberFormat* _format_of(self, p) except NULL:
        # The head's for the head, also where it is the token embeddings.
        if p.role == Role.HEAD or p.role == Role.TOKENS and self.config.is_tied:
            return &self._head_format
        return &self._format

    cdef int64_t _room_of(self, p) except -1:
        # Words of a matrix in the panels of all, which begin on pages.  Token embeddings and the
        # head stand as [V, C], the others as [inputs, outputs].
        K, N = p.shape[::-1] if p.role in (Role.HEAD, Role.TOKENS) else p.shape
        return (packed_words(self._format_of(p), K, N) + PAGE - 1) // PAGE * PAGE

    cdef const float* _packed(self, p, values) except NULL:
        cdef bint transposed = p.role in (Role.HEAD, Role.TOKENS)
        cdef const float[:, ::1] w = np.ascontiguousarray(values)
        cdef int64_t K = w.shape[1] if transposed else w.shape[0]
        cdef int64_t N = w.shape[0] if transposed else w.shape[1]
        number_format(self.precision, K)  # refuses an inner length that it cannot sum
        cdef const NumberFormat* f = self._format_of(p)
        cdef float* packed = &self._panels[self._panels_used]
        self._panels_used += self._room_of(p)
        with nogil:
            if transposed:
                pack_t(f, K, N, &w[0, 0], K, packed)
            else:
                pack(f, K, N, &w[0, 0], N, packed, NULL)
        return packed

    def _make_cache(self):
        cdef Sizes* z = &self._binding.z
        cdef int64_t slots = self.slots + 1, i
        cdef bint narrow = self.cache == "bf16"
        cdef int64_t each = (key_value_words(z.T, z.heads.G, z.heads.D, narrow) + 15) // 16 * 16
        cdef float[::1] memory = _lazy_zeros(each * z.L * slots)
        cdef char[::1] kept = np.zeros(z.L * slots * sizeof(KeyValues), dtype="b")
        cdef KeyValues* one
        self._memory.append(memory)
        self._kept = kept
        for i in range(z.L * slots):
            one = <KeyValues*>&kept[0] + i
            one.T, one.G, one.D, one.narrow = z.T, z.heads.G, z.heads.D, narrow
            one.words = &memory[i * each]
        self._length = np.zeros(slots, dtype=np.int64)
        self._phi = _lazy_zeros(slots * z.T * CRYSTAL_FEATURES if z.crystalline else 0)

    def _make_workspace(self):
        cdef Sizes* z = &self._binding.z
        cdef const NumberFormat* f = z.f
        cdef const NumberFormat* h = &self._head_format
        cdef Pass* p = &self._pass
        cdef int64_t R = CHUNK, members = self._team.threads, end = 0
        cdef int64_t longest = max(max(z.C, z.W), z.F)
        p.strip_floats = _up(STRIP_ROWS * max(z.C, z.F))
        p.scratch_floats = _up(attend_scratch(z.heads.D))
        places = []
        for size in (
            R * z.C, max(grouped(f, R) * words(f, longest), grouped(h, R) * words(h, z.C)),
            R * z.QKV, R * z.W, R * z.U,
            R * z.T if z.crystalline else 0, members * p.strip_floats,
            members * p.scratch_floats, SCORED_ROWS * z.V,
        ):
            places.append(end)
            end += _up(size)
        self._workspace = _lazy_zeros(end)
        cdef float* base = &self._workspace[0]
        p.x, p.operand, p.qkv, p.att = (
            base + <int64_t>places[0], base + <int64_t>places[1], base + <int64_t>places[2],
            base + <int64_t>places[3])
        p.up, p.similar, p.strips, p.scratch = (
            base + <int64_t>places[4], base + <int64_t>places[5], base + <int64_t>places[6],
            base + <int64_t>places[7])
        self._scored = base + <int64_t>places[8]
        p.z, p.layers = z, self._binding.layers
        p.final, p.head = &self._binding.final, &self._binding.head
        p.head_format = &self._head_format
        p.team = self._team.members
        p.kept, p.slots = <const KeyValues*>&self._kept[0], self.slots + 1
        p.features = &self._features[0, 0] if z.crystalline else NULL
        p.phi = &self._phi[0] if z.crystalline else NULL

    @property
    def chunk(self) -> int:
        """The most tokens, of all slots together, in one call of `extend`."""
        return CHUNK

    @property
    def threads(self) -> int:
        """The threads that compute together."""
        return self._team.threads

    def close(self) -> None:
        """End the team's threads; the decoder cannot be used afterwards."""
        self._team.close()

    def length(self, int slot=0) -> int:
        """Return the number of tokens in a slot."""
        self._check_slot(slot)
        return self._length[slot]

    def truncate(self, int slot, int64_t length) -> None:
        """Keep the first `length` tokens of a slot; 0 empties it."""
        self._check_slot(slot)
        if not 0 <= length <= self._length[slot]:
            raise ValueError(f"slot {slot} holds {self._length[slot]} tokens, not {length}")
        self._length[slot] = length

    def extend(self, slots, tokens):
        """Append tokens[i], one or more, to slot slots[i], each slot once.

        Returns the logits after each one's last token, float32 [len(slots), V].  Raises ValueError
        beyond seq_len, and for more than `chunk` tokens; nothing is appended then.
        """
        parts = [np.ascontiguousarray(one, dtype=np.int32).reshape(-1) for one in tokens]
        places = [int(slot) for slot in slots]
        if len(places) != len(parts) or not parts:
            raise ValueError(f"{len(parts)} texts for {len(places)} slots")
        if len(set(places)) < len(places):
            raise ValueError(f"the slots {places} name one twice")
        for slot, part in zip(places, parts):
            self._check_slot(slot)
            self._check_tokens(part, self.config.seq_len - self._length[slot], f"slot {slot}")
        if sum(len(part) for part in parts) > CHUNK:
            raise ValueError(f"{sum(len(part) for part in parts)} tokens are more than {CHUNK}")
        logits = np.empty((len(parts), self.config.vocab_size), dtype=np.float32)
        cdef float[:, ::1] out = logits
        ends = np.cumsum([len(part) for part in parts]) - 1
        self._run(places, parts, ends, &out[0, 0])
        return logits

    def score(self, tokens):
        """Return -ln p of each next token, float64 [n - 1], for 2 to seq_len + 1 tokens [n]."""
        ids = np.ascontiguousarray(tokens, dtype=np.int32)
        if ids.ndim != 1 or not 2 <= len(ids) <= self.config.seq_len + 1:
            raise ValueError(
                f"tokens has shape {ids.shape}: 2 to {self.config.seq_len + 1} tokens are needed")
        self._check_tokens(ids, len(ids), "the text")
        cdef double[::1] losses = np.empty(len(ids) - 1)
        cdef int32_t[::1] targets = ids[1:].copy()
        cdef int64_t start, count, n = len(ids) - 1
        self._length[self.slots] = 0
        for start in range(0, n, CHUNK):
            count = min(<int64_t>CHUNK, n - start)
            self._pass.losses, self._pass.targets = &losses[start], &targets[start]
            try:
                self._run([self.slots], [ids[start:start + count]], np.arange(count), self._scored)
            finally:
                self._pass.losses, self._pass.targets = NULL, NULL
        return np.asarray(losses)

    cdef int _run(self, list places, list parts, wants, float* logits) except -1:
        # One pass: the tokens of `parts` go to the slots `places`.
        cdef Part[::1] described = np.zeros((len(parts),), dtype=_PART)
        cdef int64_t[::1] wanted = np.ascontiguousarray(wants, dtype=np.int64)
        cdef const int32_t[::1] ids = np.concatenate(parts)
        cdef Pass* p = &self._pass
        cdef int64_t i, row = 0, slot, j
        for i in range(len(parts)):
            slot = places[i]
            described[i].slot, described[i].first = slot, self._length[slot]
            described[i].n, described[i].row = len(parts[i]), row
            if p.features != NULL:
                for j in range(described[i].n):
                    memcpy(p.phi + (slot * p.z.T + self._length[slot] + j) * CRYSTAL_FEATURES,
                           &self._features[ids[row + j], 0], CRYSTAL_FEATURES * sizeof(float))
            row += described[i].n
        p.R, p.parts, p.part, p.ids = row, len(parts), &described[0], &ids[0]
        p.wanted, p.wants, p.logits = wanted.shape[0], &wanted[0], logits
        team_run(self._team, compute, p)
        for i in range(len(parts)):
            self._length[described[i].slot] += described[i].n
        return 0

    def reorder(self, sources) -> None:
        """Make slot i a copy of what slot sources[i] held, for beam search."""
        order = [int(source) for source in sources]
        if len(order) > self.slots:
            raise ValueError(f"{len(order)} sources for {self.slots} slots")
        for source in order:
            self._check_slot(source)
        _copy_in_order(self, order)

    cdef void _copy(self, int64_t source, int64_t slot) noexcept:
        cdef Pass* p = &self._pass
        cdef int64_t layer, n = self._length[source], row = p.z.T * CRYSTAL_FEATURES
        for layer in range(p.z.L):
            copy_kept(&p.kept[layer * p.slots + source], &p.kept[layer * p.slots + slot], n)
        if p.phi != NULL:
            memcpy(p.phi + slot * row, p.phi + source * row, n * CRYSTAL_FEATURES * sizeof(float))
        self._length[slot] = n

    def _check_slot(self, int64_t slot):
        if not 0 <= slot < self.slots:
            raise IndexError(f"slot {slot} of {self.slots}")

    def _check_tokens(self, const int32_t[::1] ids, int64_t room, str what):
        cdef int64_t i
        if not 1 <= ids.shape[0] <= room:
            raise ValueError(
                f"{ids.shape[0]} tokens for {what}, which takes {'1 to ' if room else ''}{room}")
        for i in range(ids.shape[0]):
            if not 0 <= ids[i] < self.config.vocab_size:
                raise ValueError(
                    f"token {ids[i]} is outside the vocabulary of {self.config.vocab_size}")


cdef object _copy_in_order(Decoder decoder, list order):
    # A slot is overwritten once nobody else wants what it held; a cycle goes through the last slot.
    cdef int64_t spare = decoder.slots
    left = {slot: source for slot, source in enumerate(order) if slot != source}
    while left:
        wanted = set(left.values())
        free = [slot for slot in left if slot not in wanted]
        if free:
            decoder._copy(left.pop(free[0]), free[0])
            continue
        slot = next(iter(left))  # all that is left are cycles
        decoder._copy(slot, spare)
        for other, source in left.items():
            if source == slot:
                left[other] = spare
    return None


cdef int64_t _up(int64_t n) noexcept nogil:
    return (n + 15) // 16 * 16


def _lazy_zeros(int64_t n):
    # float32 [n], zeros that take memory only where something is written; long ones in huge pages.
    memory = mmap.mmap(-1, 4 * max(n, 16), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if len(memory) >= HUGE_BYTES:
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.float32)
