# The head: logits of a block of rows, their loss, and its gradients.
from libc.stdint cimport int32_t, int64_t

from crystalline._kernels.isa cimport SoftTargets, StoreMode
from crystalline.model.layers.buffers cimport Buffers
from crystalline.model.layers.table cimport Matrix, Sizes

cdef void head_logits(const Sizes* z, const Matrix* head, int64_t rows, const float* operand,
                      float* logits__rv) noexcept nogil
# The loss of all R rows, from FINAL_IN, in nats; with `backward` also the gradient of the final
# norm's output, into DATT, and the head's into grads [V, C], unless it is NULL.  The loss against
# soft targets goes into smoothed.  A row whose target is negative has none: it adds nothing to a
# loss, and its gradient is 0.
cdef double head_loss(const Sizes* z, const Matrix* head, int64_t R, const int32_t* targets,
                      float scale, bint backward, float* grads, StoreMode store,
                      const SoftTargets* soft, double* smoothed, const Buffers* b) noexcept nogil
