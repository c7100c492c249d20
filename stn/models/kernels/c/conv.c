/* Convolutions on CPUs of small maps with many channels, forward and backward: floats with channels last, so that a
   vector is channels of one pixel. Unlike cpu.c's, products and sums are fused. Threads share work whose results are
   apart, so their number has no part in a result.
   B images, H x W their pixels, G groups of C channels and O filters of k x l; results have h x w pixels. Of the
   filters' last axis P, a whole number of vectors, O or C are filters or channels, and the rest is 0. */

#include "vectors.h"

#define TILE 8 /* rows of a tile at most, pixels or channels with 1 to 3 vectors for each: what fits into registers */
#define IMAGES 16 /* whose maps fit into the cache */

/* 0 where these functions were never measured. */

int vector_lanes(void) {
#ifdef __AVX2__
    return LANES;
#else
    return 0;
#endif
}

/* Store the first lanes, whose number a branch predicts: a call of memcpy would take as long as a tile. */

INLINE void put_some(float *p, floats v, long lanes) {
    float each[LANES], *from = each;
    if (lanes >= LANES) return put(p, v);
    put(each, v);
    for (long n = LANES / 2; n; n /= 2)
        if (lanes & n) memcpy(p, from, n * sizeof *p), p += n, from += n;
}

/* Call a function, whose last arguments are T and V, for some of the vectors from number v on until all are done. */

#if LANES == 16
#define IN_PASSES(v, vectors, CALL) \
    for (long v = 0; v < vectors; v += 2) v + 1 < vectors ? CALL(v, 8, 2) : CALL(v, 8, 1);
#else
#define IN_PASSES(v, vectors, CALL)                             \
    for (long v = 0, some; (some = vectors - v) > 0; v += some) \
        some == 1   ? CALL(v, 8, 1)                              \
        : some == 3 ? CALL(v, 4, 3)                              \
                    : (some = 2, CALL(v, 6, 2));
#endif

#define EACH_VECTOR UNROLLED for (int v = 0; v < V; v++)

/* The sums of a tile's results, V vectors for each of T pixels. */

INLINE void add_products(floats sum[TILE][3], const float *const from[TILE], long offset, const float *filters,
                         long channels, long P, const int T, const int V) {
    for (long c = 0; c < channels; c++, filters += P) {
        floats own[3];
        EACH_VECTOR own[v] = get(filters + v * LANES);
        UNROLLED for (int p = 0; p < T; p++) {
            float pixel = from[p][offset + c];
            EACH_VECTOR sum[p][v] += own[v] * pixel;
        }
    }
}

/* What is left of the last tile repeats its last pixel; all write the same there. */

#define EACH_PIXEL(n, N)                  \
    UNROLLED for (int p = 0; p < T; p++) \
        for (long m = MIN(n + p, N - 1), once = 1; once; once = 0)

INLINE void forward(const float *x, const float *filters, const float *bias, float *out, long lanes, long H, long W,
                    long G, long C, long O, long k, long l, long P, const int T, const int V) {
    long w = W - l + 1, N = (H - k + 1) * w;
    for (long n = 0; n < N; n += T) {
        const float *from[TILE];
        floats sum[TILE][3];
        EACH_PIXEL(n, N) {
            from[p] = x + (m / w * W + m % w) * G * C;
            EACH_VECTOR sum[p][v] = get(bias + v * LANES);
        }
        for (long i = 0; i < k; i++)
            for (long j = 0; j < l; j++)
                add_products(sum, from, (i * W + j) * G * C, filters + (i * l + j) * C * P, C, P, T, V);
        EACH_PIXEL(n, N) EACH_VECTOR put_some(out + m * G * O + v * LANES, sum[p][v], lanes - v * LANES);
    }
}

/* filters: [G, k, l, C, P]; bias: [G, P] */

void convolve(const float *x, const float *filters, const float *bias, float *out, long B, long H, long W, long G,
              long C, long O, long k, long l, long P, long threads) {
    long N = (H - k + 1) * (W - l + 1);
    SHARED for (long b = 0; b < B; b++)
        for (long g = 0; g < G; g++) {
            const float *from = x + (b * H * W * G + g) * C, *own = filters + g * k * l * C * P;
            float *to = out + (b * N * G + g) * O;
#define ONE_OF(C, v, T, V)                                                                                      \
    forward(from, own + v * LANES, bias + g * P + v * LANES, to + v * LANES, O - v * LANES, H, W, G, C, O, k, l, \
            P, T, V)
#define FORWARD(v, T, V) (C == 1 ? ONE_OF(1, v, T, V) : ONE_OF(C, v, T, V))
            IN_PASSES(v, P / LANES, FORWARD)
        }
}

/* at: where the filter's corner lies for each pixel of the gradient; pitch: floats of a pixel of out. */

INLINE void scatter(const float *grad, const float *filters, float *out, const long *at, long pitch, long N, long W,
                    long G, long O, long k, long l, long P, const int T, const int V) {
    for (long i = 0; i < k; i++)
        for (long j = 0; j < l; j++)
            for (long n = 0; n < N; n += T) {
                const float *from[TILE];
                float *to[TILE];
                floats sum[TILE][3];
                EACH_PIXEL(n, N) {
                    from[p] = grad + m * G * O;
                    to[p] = out + (at[m] + i * W + j) * pitch;
                    EACH_VECTOR sum[p][v] = get(to[p] + v * LANES);
                }
                add_products(sum, from, 0, filters + (i * l + j) * O * P, O, P, T, V);
                UNROLLED for (int p = 0; p < T; p++) EACH_VECTOR put(to[p] + v * LANES, sum[p][v]);
            }
}

/* The gradient of the images; filters: [G, k, l, O, P]. Where channels are no whole vectors, it is made apart. */

void convolve_to_image(const float *grad, const float *filters, float *out, long B, long H, long W, long G, long C,
                       long O, long k, long l, long P, long threads) {
    long w = W - l + 1, N = (H - k + 1) * w, apart = C < P, at[N];
    for (long m = 0; m < N; m++) at[m] = m / w * W + m % w;
    SHARED for (long b = 0; b < B; b++) {
        float *image = out + b * H * W * G * C, whole[apart ? H * W * P : 1];
        if (!apart) memset(image, 0, H * W * G * C * sizeof *out);
        for (long g = 0; g < G; g++) {
            const float *from = grad + (b * N * G + g) * O, *own = filters + g * k * l * O * P;
            float *to = apart ? whole : image + g * C;
            long pitch = apart ? P : G * C;
            if (apart) memset(whole, 0, sizeof whole);
#define SCATTER(v, T, V) scatter(from, own + v * LANES, to + v * LANES, at, pitch, N, W, G, O, k, l, P, T, V)
            IN_PASSES(v, P / LANES, SCATTER)
            for (long m = 0; apart && m < H * W; m++) memcpy(image + (m * G + g) * C, whole + m * P, C * sizeof *out);
        }
    }
}

/* Add the products of some images' pixels with the gradient to a block of a filter: T channels of it, V vectors. */

INLINE void gather(const float *x, const float *grad, float *to, long images, long H, long W, long h, long w, long G,
                   long C, long P, const int T, const int V) {
    floats sum[TILE][3]; /* apart from those of other images: a long sum loses digits */
    UNROLLED for (int c = 0; c < T; c++) EACH_VECTOR sum[c][v] = (floats){0};
    for (long b = 0; b < images; b++)
        for (long y = 0; y < h; y++) {
            const float *pixels = x + (b * H + y) * W * G * C, *grads = grad + (b * h + y) * w * G * P;
            for (long z = 0; z < w; z++, pixels += G * C, grads += G * P) {
                floats own[3];
                EACH_VECTOR own[v] = get(grads + v * LANES);
                UNROLLED for (int c = 0; c < T; c++) EACH_VECTOR sum[c][v] += own[v] * pixels[c];
            }
        }
    UNROLLED for (int c = 0; c < T; c++)
        EACH_VECTOR put(to + c * P + v * LANES, get(to + c * P + v * LANES) + sum[c][v]);
}

/* The gradient of the filters, [G, k, l, C, P]; grad: [B, h, w, G, P]. */

void convolve_to_filters(const float *x, const float *grad, float *out, long B, long H, long W, long G, long C, long P,
                         long k, long l, long threads) {
    long h = H - k + 1, w = W - l + 1;
    SHARED for (long row = 0; row < G * k; row++) {
        long g = row / k, i = row % k;
        memset(out + row * l * C * P, 0, l * C * P * sizeof *out);
        for (long b = 0; b < B; b += IMAGES) {
            long images = MIN(IMAGES, B - b);
            for (long j = 0; j < l; j++)
                for (long c = 0, left; (left = C - c) > 0; c += left) {
                    const float *pixels = x + (((b * H + i) * W + j) * G + g) * C + c;
                    const float *grads = grad + (b * h * w * G + g) * P;
                    float *to = out + ((row * l + j) * C + c) * P;
#define GATHER(T, v, V) \
    gather(pixels, grads + v * LANES, to + v * LANES, images, H, W, h, w, G, C, P, T, V)
#define GATHERED(v, T, V)                                               \
    LANES == 16 && left >= 8 ? (left = 8, GATHER(8, v, V))              \
    : left >= 4              ? (left = 4, GATHER(4, v, V))              \
    : left >= 2              ? (left = 2, GATHER(2, v, V))              \
                             : GATHER(1, v, V)
                    IN_PASSES(v, P / LANES, GATHERED)
                }
        }
    }
}
