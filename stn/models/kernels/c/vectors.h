/* Vectors of LANES floats: as many as this CPU adds up at once, unless a file says otherwise. */

#include <string.h>

#ifndef LANES
#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#endif

typedef float floats __attribute__((vector_size(4 * LANES)));

#define SHARED _Pragma("omp parallel for num_threads(threads)")
#define UNROLLED _Pragma("GCC unroll 8")
#define INLINE static inline __attribute__((always_inline))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

INLINE floats get(const float *p) {
    floats v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void put(float *p, floats v) { memcpy(p, &v, sizeof v); }
