/* The gradients of convolutions whose maps are max-pooled in squares of 2x2: of four pixels one has a gradient at most,
   so that a quarter of the products is left. Floats with channels last; products and sums are fused. Threads share work
   whose results are apart, so their number has no part in a result.
   B images, H x W their pixels, Y x Z with the zeros around them, p rows and q columns on each side, G groups of C
   channels and O filters of k x l; pooled maps have h x w pixels. A row of a filter is l pixels of C channels, filled up
   to whole vectors: P floats. */

#include <stdint.h>

#include "vectors.h"

#define FILTERS 16 /* whose gradients are summed at once */
#define PIXELS 128 /* of pooled maps: sums over more lose digits */
#define ENTRIES 4096

typedef struct {
    float grad;
    int32_t at; /* of the patch in the images, or of the filter in the filters */
} Entry;

typedef struct {
    int32_t at, first, end; /* of the patch; of its filters' entries */
} Spot;

/* Call a function, whose last arguments are T rows and V vectors, for all of a filter: what fits into registers. */

#define TILES(row, column, k, P, CALL)                                                           \
    for (long column = 0, V; column < P; column += V * LANES) {                                  \
        long vectors = (P - column) / LANES;                                                     \
        V = vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1;                                             \
        for (long row = 0, most = V == 4 ? 2 : 5, T; row < k; row += T) {                        \
            long left = (k - row + most - 1) / most;                                             \
            T = (k - row + left - 1) / left;                                                     \
            V == 4   ? (T == 2 ? CALL(2, 4) : CALL(1, 4))                                        \
            : V == 2 ? (T == 5   ? CALL(5, 2)                                                    \
                        : T == 4 ? CALL(4, 2)                                                    \
                        : T == 3 ? CALL(3, 2)                                                    \
                        : T == 2 ? CALL(2, 2)                                                    \
                                 : CALL(1, 2))                                                   \
                     : (T == 5   ? CALL(5, 1)                                                    \
                        : T == 4 ? CALL(4, 1)                                                    \
                        : T == 3 ? CALL(3, 1)                                                    \
                        : T == 2 ? CALL(2, 1)                                                    \
                                 : CALL(1, 1));                                                  \
        }                                                                                        \
    }

#define EACH(T, V)                      \
    UNROLLED for (int t = 0; t < T; t++) \
        UNROLLED for (int v = 0; v < V; v++)

INLINE void add_patches(const float *x, long pitch, const Entry *entries, long count, float *to, long P, const int T,
                        const int V) {
    floats sum[5][4];
    EACH(T, V) sum[t][v] = (floats){0};
    for (long n = 0; n < count; n++) {
        const float *from = x + entries[n].at;
        float grad = entries[n].grad;
        EACH(T, V) sum[t][v] += get(from + t * pitch + v * LANES) * grad;
    }
    EACH(T, V) put(to + t * P + v * LANES, get(to + t * P + v * LANES) + sum[t][v]);
}

/* The gradient of the filters, [G, O, k, P]; apart: room for the images group by group and a vector more. */

void pooled_to_filters(const float *x, const float *grad, const int8_t *place, float *out, float *apart, long B, long H,
                       long W, long G, long C, long O, long k, long l, long P, long p, long q, long threads) {
    long Y = H + 2 * p, Z = W + 2 * q, h = (Y - k + 1) / 2, w = (Z - l + 1) / 2, size = Y * Z * C;
    long parts = (O + FILTERS - 1) / FILTERS;
    SHARED for (long image = 0; image < G * B; image++) {
        const float *from = x + (image % B * H * W * G + image / B) * C;
        float *all = apart + image * size, *to = all + (p * Z + q) * C;
        if (p + q) memset(all, 0, size * sizeof *all);
        for (long y = 0; y < H; y++, to += 2 * q * C)
            for (long z = 0; z < W; z++, to += C, from += G * C)
                for (long c = 0; c < C; c++) to[c] = from[c];
    }
    SHARED for (long part = 0; part < G * parts; part++) {
        long g = part / parts, o = part % parts * FILTERS, N = MIN(FILTERS, O - o);
        const float *images = apart + g * B * size;
        float *to = out + (g * O + o) * k * P;
        memset(to, 0, N * k * P * sizeof *to);
        for (long first = 0; first < B * h * w; first += PIXELS) {
            Entry entries[FILTERS][PIXELS];
            long count[FILTERS] = {0};
            for (long n = first; n < MIN(first + PIXELS, B * h * w); n++) {
                const float *grads = grad + (n * G + g) * O + o;
                const int8_t *places = place + (n * G + g) * O + o;
                long y = n / w % h * 2, z = n % w * 2;
                int32_t at[4];
                for (int i = 0; i < 4; i++) at[i] = n / (h * w) * size + ((y + i / 2) * Z + z + i % 2) * C;
                for (long row = 0; row < k + 1; row++) /* what is read is scattered: fetch it in order before */
                    for (long c = 0; c < 2 * C; c += 16) __builtin_prefetch(images + at[0] + (row * Z + l - 1) * C + c);
                for (long f = 0; f < N; f++) {
                    entries[f][count[f]] = (Entry){grads[f], at[places[f]]};
                    count[f] += grads[f] != 0;
                }
            }
#define PATCHES(T, V)                                                                                             \
    add_patches(images + row * Z * C + column, Z * C, entries[f], count[f], to + (f * k + row) * P + column, P, T, V)
            for (long f = 0; f < N; f++) TILES(row, column, k, P, PATCHES)
        }
    }
}

INLINE void add_filters(const float *filters, long P, const Spot *spots, long count, const Entry *entries, float *to,
                        long pitch, const int T, const int V) {
    for (const Spot *spot = spots; spot < spots + count; spot++) {
        floats sum[5][4];
        EACH(T, V) sum[t][v] = get(to + spot->at + t * pitch + v * LANES);
        for (long n = spot->first; n < spot->end; n++) {
            const float *from = filters + entries[n].at;
            float grad = entries[n].grad;
            EACH(T, V) sum[t][v] += get(from + t * P + v * LANES) * grad;
        }
        EACH(T, V) put(to + spot->at + t * pitch + v * LANES, sum[t][v]);
    }
}

/* The gradient of the images; filters: [G, O, k, P], filled up with zeros. */

void pooled_to_image(const float *grad, const int8_t *place, const float *filters, float *out, long B, long H, long W,
                     long G, long C, long O, long k, long l, long P, long p, long q, long threads) {
    long Y = H + 2 * p, Z = W + 2 * q, h = (Y - k + 1) / 2, w = (Z - l + 1) / 2, most = MAX(ENTRIES / O, 1);
    SHARED for (long image = 0; image < B * G; image++) {
        long b = image / G, g = image % G;
        float to[Y * Z * C + LANES];
        memset(to, 0, sizeof to);
        for (long first = 0; first < h * w; first += most) {
            Entry entries[most * O + 1];
            Spot spots[most * 4];
            long count = 0, n = 0;
            for (long m = first; m < MIN(first + most, h * w); m++) {
                const float *grads = grad + ((b * h * w + m) * G + g) * O;
                const int8_t *places = place + ((b * h * w + m) * G + g) * O;
                for (int i = 0; i < 4; i++) {
                    long before = n;
                    for (long o = 0; o < O; o++) {
                        entries[n] = (Entry){grads[o], o * k * P};
                        n += (places[o] == i) & (grads[o] != 0);
                    }
                    spots[count] = (Spot){((m / w * 2 + i / 2) * Z + m % w * 2 + i % 2) * C, before, n};
                    count += n > before;
                }
            }
#define FILTERED(T, V)                                                                                             \
    add_filters(filters + (g * O * k + row) * P + column, P, spots, count, entries, to + row * Z * C + column, Z * C, \
                T, V)
            TILES(row, column, k, P, FILTERED)
        }
        float *own = out + (b * H * W * G + g) * C, *from = to + (p * Z + q) * C;
        for (long y = 0; y < H; y++, from += 2 * q * C)
            for (long z = 0; z < W; z++, from += C, own += G * C) memcpy(own, from, C * sizeof *to);
    }
}
