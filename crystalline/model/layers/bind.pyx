"""From a configuration to the structs of its layers: what is computed, and where the weights are.

A `Binding` knows the sizes and choices of every layer; whoever holds weights says where each tensor
is.  It keeps nothing alive but its own memory and the table of rotations.
"""

import numpy as np

from crystalline.model.architectures.table import Role

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from crystalline._kernels.attention cimport CRYSTAL_FEATURES
from crystalline._kernels.isa cimport NumberFormat
from crystalline.model.layers.table cimport (
    GELU, RELU2, SWIGLU, Layer, Matrix, MlpKind, Norm, Sizes,
)

_MLP_KINDS = {"gelu": <int>GELU, "swiglu": <int>SWIGLU, "relu2": <int>RELU2}


cdef Sizes sizes_of(config, const NumberFormat* f, int64_t rank) except *:
    cdef Sizes z
    row = config.row
    z.f, z.rank = f, rank
    z.V, z.T, z.L, z.C = config.vocab_size, config.seq_len, config.num_layers, config.embed_dim
    z.heads.H, z.heads.G, z.heads.D = config.num_heads, config.kv_heads, config.head_dim
    z.heads.window = config.sliding_window if config.sliding_window < config.seq_len else 0
    z.W = z.heads.H * z.heads.D
    z.QKV = z.W + 2 * z.heads.G * z.heads.D
    z.F = config.mlp_width
    z.U = 2 * z.F if row.has_gate else z.F
    z.normalizes_heads = Role.Q_NORM in row.tensors
    z.rotates = row.positions == "rotary"
    z.mlp = <MlpKind><int>_MLP_KINDS[row.mlp]
    z.crystalline = config.attention == "crystalline"
    return z


cdef const float[:, ::1] expect_features(config, const float[:, ::1] features) except *:
    cdef int64_t V = config.vocab_size if config.attention == "crystalline" else 0
    if features is None:
        features = np.empty((0, CRYSTAL_FEATURES), dtype=np.float32)
    if features.shape[0] != V or features.shape[1] != CRYSTAL_FEATURES:
        raise ValueError(
            f"features is [{features.shape[0]}, {features.shape[1]}], {config.attention} "
            f"attention needs [{V}, {CRYSTAL_FEATURES}]")
    return features


cdef inline void shape(Matrix* m, int64_t K, int64_t N) noexcept:
    m.K, m.N = K, N
    m.at = m.bias_at = -1
    m.adapter.r = 0


cdef class Binding:
    """The layers of one model.

    Parameters
    ----------
    config : ModelConfig
    """

    def __cinit__(self, config):
        self.layers = <Layer*>calloc(config.num_layers, sizeof(Layer))
        if self.layers == NULL:
            raise MemoryError(f"{config.num_layers} layers cannot be described")

    def __init__(self, config):
        self.config = config

    def __dealloc__(self):
        free(self.layers)

    cdef int describe(self, const NumberFormat* f, int64_t rank) except -1:
        cdef int64_t i
        cdef Layer* y
        cdef Norm norm
        cdef Sizes z = sizes_of(self.config, f, rank)
        self.z = z
        norm.C, norm.scale, norm.shift = z.C, NULL, NULL
        norm.at = norm.shift_at = -1
        norm.epsilon = self.config.epsilon
        self.final = norm
        shape(&self.head, z.C, z.V)
        for i in range(z.L):
            y = &self.layers[i]
            y.norm1 = y.norm2 = norm
            y.attention.heads = z.heads
            shape(&y.attention.qkv, z.C, z.QKV)
            shape(&y.attention.out, z.W, z.C)
            y.attention.q_norm = y.attention.k_norm = norm
            y.attention.q_norm.C = y.attention.k_norm.C = z.heads.D
            y.attention.lambdas_at = -1
            y.mlp.kind, y.mlp.F = z.mlp, z.F
            shape(&y.mlp.up, z.C, z.U)
            shape(&y.mlp.down, z.F, z.C)
        if z.rotates:
            self._rotate()
        return 0

    cdef int _rotate(self) except -1:
        # Exact mathematics takes 0.1 s to load, and most models do not need it here.
        from crystalline.model.rotary import rotary_table

        cdef const float[:, ::1] cosines, sines
        cdef int64_t i
        self._rotary = rotary_table(self.config)
        cosines, sines = self._rotary
        for i in range(self.z.L):
            self.layers[i].attention.cosines = &cosines[0, 0]
            self.layers[i].attention.sines = &sines[0, 0]
        return 0

    cdef Layer* _layer(self, int64_t layer) except NULL:
        if not 0 <= layer < self.z.L:
            raise IndexError(f"layer {layer} of {self.z.L}")
        return &self.layers[layer]

    cdef int place_vector(self, role, int64_t layer, int64_t at, const float* values) except -1:
        cdef Norm* norm = NULL
        cdef Matrix* m = NULL
        cdef Layer* y = NULL
        if role in (Role.FINAL_NORM, Role.FINAL_NORM_BIAS):
            norm = &self.final
        else:
            y = self._layer(layer)
        if role in (Role.NORM1, Role.NORM1_BIAS):
            norm = &y.norm1
        elif role in (Role.NORM2, Role.NORM2_BIAS):
            norm = &y.norm2
        elif role == Role.Q_NORM:
            norm = &y.attention.q_norm
        elif role == Role.K_NORM:
            norm = &y.attention.k_norm
        elif role == Role.QKV_BIAS:
            m = &y.attention.qkv
        elif role == Role.OUT_BIAS:
            m = &y.attention.out
        elif role == Role.UP_BIAS:
            m = &y.mlp.up
        elif role == Role.DOWN_BIAS:
            m = &y.mlp.down
        if role == Role.LAMBDA:
            y.attention.lambdas, y.attention.lambdas_at = values, at
        elif m != NULL:
            m.bias, m.bias_at = values, at
        elif role in (Role.NORM1_BIAS, Role.NORM2_BIAS, Role.FINAL_NORM_BIAS):
            norm.shift, norm.shift_at = values, at
        elif norm != NULL:
            norm.scale, norm.at = values, at
        else:
            raise ValueError(f"{role} is no vector")
        return 0

    cdef int place_matrix(self, role, int64_t layer, int64_t at, const float* packed,
                          const float* packed_t) except -1:
        cdef Matrix* m = self._matrix(role, layer)
        m.packed, m.packed_t, m.at = packed, packed_t, at
        return 0

    cdef Matrix* _matrix(self, role, int64_t layer) except NULL:
        if role in (Role.HEAD, Role.TOKENS):
            return &self.head
        if role == Role.QKV:
            return &self._layer(layer).attention.qkv
        if role == Role.OUT:
            return &self._layer(layer).attention.out
        if role == Role.UP:
            return &self._layer(layer).mlp.up
        if role == Role.DOWN:
            return &self._layer(layer).mlp.down
        raise ValueError(f"{role} is no matrix of a product")
