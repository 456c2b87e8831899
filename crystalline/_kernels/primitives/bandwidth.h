/* What the memory system can do: floats read, written, copied, changed, and nothing else.
 *
 * Four streams run side by side, a quarter of the array each: with one, what fetches ahead by itself
 * does not get all there is.  The empty `__asm__` takes what was read and may change memory, so that
 * the compiler leaves no round out.
 */
#ifndef CL_BANDWIDTH_H
#define CL_BANDWIDTH_H

#include "primitives.h"
#include "vec.h"

enum { CL_STREAMS = 4 };

#define CL_EACH(step)                                                \
  for (int64_t i = 0; i < n / CL_STREAMS; i += VL)                   \
    _Pragma("GCC unroll 4") for (int s = 0; s < CL_STREAMS; s++) {   \
      const int64_t at = s * (n / CL_STREAMS) + i;                   \
      step;                                                          \
    }

static void move_floats(Traffic traffic, int64_t n, int64_t rounds, const float *a, float *b) {
  vi seen = {0};
  for (int64_t round = 0; round < rounds; round++) {
    switch (traffic) {
      case CL_READ: CL_EACH(seen |= vibits(vload(a + at))) break;
      case CL_WRITE: CL_EACH(vstore(b + at, vzero())) break;
      case CL_WRITE_PAST: CL_EACH(vstream(b + at, vzero())) break;
      case CL_COPY: CL_EACH(vstore(b + at, vload(a + at))) break;
      case CL_CHANGE: CL_EACH(vstore(b + at, vbits(~vibits(vload(b + at))))) break;
    }
    __asm__ volatile("" : : "m"(seen) : "memory");
  }
  CL_STREAM_FENCE;
}
#undef CL_EACH

#endif
