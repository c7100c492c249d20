/* Convolutions on CPUs of small maps with many channels, forward and backward: floats with channels last, so that a
   vector is channels of one pixel. Unlike cpu.c's, products and sums are fused. Threads share work whose results are
   apart, so their number has no part in a result.
   B images, H x W their pixels, G groups of C channels and O filters of k x l; results have h x w pixels. */

#include <string.h>

#define LANES 16
#define TILE 8 /* pixels: with two vectors for each they fill half of the registers */
#define IMAGES 16 /* whose maps fit into the cache */

typedef float floats __attribute__((vector_size(4 * LANES)));

#define SHARED _Pragma("omp parallel for num_threads(threads)")
#define UNROLLED _Pragma("GCC unroll 8")
#define INLINE static inline __attribute__((always_inline))

INLINE floats get(const float *p) {
    floats v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void put(float *p, floats v) { memcpy(p, &v, sizeof v); }

/* The sums of a tile's results, V vectors for each pixel: 2, or 1 where there are no more channels. */

INLINE void add_products(floats sum[TILE][2], const float *const from[TILE], long offset, const float *filters,
                         long channels, long pitch, const int V) {
    for (long c = 0; c < channels; c++, filters += pitch) {
        floats first = get(filters), second = V > 1 ? get(filters + LANES) : first;
        UNROLLED for (int p = 0; p < TILE; p++) {
            float pixel = from[p][offset + c];
            sum[p][0] += first * pixel;
            if (V > 1) sum[p][1] += second * pixel;
        }
    }
}

/* What is left of the last tile repeats its last pixel; all write the same there. */

#define EACH_PIXEL(n, N) \
    UNROLLED for (int p = 0; p < TILE; p++) \
        for (long m = n + p < N ? n + p : N - 1, once = 1; once; once = 0)

INLINE void forward(const float *x, const float *filters, const float *bias, float *out, long H, long W, long G, long C,
                    long O, long k, long l, const int V) {
    long w = W - l + 1, N = (H - k + 1) * w;
    for (long n = 0; n < N; n += TILE) {
        const float *from[TILE];
        floats sum[TILE][2];
        EACH_PIXEL(n, N) {
            from[p] = x + (m / w * W + m % w) * G * C;
            for (int v = 0; v < V; v++) sum[p][v] = get(bias + v * LANES);
        }
        for (long i = 0; i < k; i++)
            for (long j = 0; j < l; j++)
                add_products(sum, from, (i * W + j) * G * C, filters + (i * l + j) * C * O, C, O, V);
        EACH_PIXEL(n, N) for (int v = 0; v < V; v++) put(out + m * G * O + v * LANES, sum[p][v]);
    }
}

/* filters: [G, k, l, C, O] */

void convolve(const float *x, const float *filters, const float *bias, float *out, long B, long H, long W, long G,
              long C, long O, long k, long l, long threads) {
    long N = (H - k + 1) * (W - l + 1);
    SHARED for (long b = 0; b < B; b++)
        for (long g = 0; g < G; g++) {
            const float *from = x + (b * H * W * G + g) * C, *own = filters + g * k * l * C * O;
            float *to = out + (b * N * G + g) * O;
            long o = 0;
            for (; o + 2 * LANES <= O; o += 2 * LANES)
                forward(from, own + o, bias + g * O + o, to + o, H, W, G, C, O, k, l, 2);
            for (; o < O; o += LANES) forward(from, own + o, bias + g * O + o, to + o, H, W, G, C, O, k, l, 1);
        }
}

INLINE void scatter(const float *grad, const float *filters, float *out, long H, long W, long G, long C, long O, long k,
                    long l, const int V) {
    long w = W - l + 1, N = (H - k + 1) * w;
    for (long i = 0; i < k; i++)
        for (long j = 0; j < l; j++)
            for (long n = 0; n < N; n += TILE) {
                const float *from[TILE];
                float *to[TILE];
                floats sum[TILE][2];
                EACH_PIXEL(n, N) {
                    from[p] = grad + m * G * O;
                    to[p] = out + ((m / w + i) * W + m % w + j) * G * C;
                    for (int v = 0; v < V; v++) sum[p][v] = get(to[p] + v * LANES);
                }
                add_products(sum, from, 0, filters + (i * l + j) * O * C, O, C, V);
                UNROLLED for (int p = 0; p < TILE; p++)
                    for (int v = 0; v < V; v++) put(to[p] + v * LANES, sum[p][v]);
            }
}

/* The gradient of the images; filters: [G, k, l, O, C]. */

void convolve_to_image(const float *grad, const float *filters, float *out, long B, long H, long W, long G, long C,
                       long O, long k, long l, long threads) {
    long N = (H - k + 1) * (W - l + 1);
    SHARED for (long b = 0; b < B; b++) {
        memset(out + b * H * W * G * C, 0, H * W * G * C * sizeof *out);
        for (long g = 0; g < G; g++) {
            const float *from = grad + (b * N * G + g) * O, *own = filters + g * k * l * O * C;
            float *to = out + (b * H * W * G + g) * C;
            long c = 0;
            for (; c + 2 * LANES <= C; c += 2 * LANES) scatter(from, own + c, to + c, H, W, G, C, O, k, l, 2);
            for (; c < C; c += LANES) scatter(from, own + c, to + c, H, W, G, C, O, k, l, 1);
        }
    }
}

/* Add the products of some images' pixels with the gradient to a block of a filter: TILE channels of it, V vectors. */

INLINE void gather(const float *x, const float *grad, float *to, long images, long H, long W, long h, long w, long G,
                   long C, long O, const int V) {
    floats sum[TILE][2]; /* apart from those of other images: a long sum loses digits */
    UNROLLED for (int c = 0; c < TILE; c++)
        for (int v = 0; v < V; v++) sum[c][v] = (floats){0};
    for (long b = 0; b < images; b++)
        for (long y = 0; y < h; y++) {
            const float *pixels = x + (b * H + y) * W * G * C, *grads = grad + (b * h + y) * w * G * O;
            for (long z = 0; z < w; z++, pixels += G * C, grads += G * O) {
                floats first = get(grads), second = V > 1 ? get(grads + LANES) : first;
                UNROLLED for (int c = 0; c < TILE; c++) {
                    sum[c][0] += first * pixels[c];
                    if (V > 1) sum[c][1] += second * pixels[c];
                }
            }
        }
    UNROLLED for (int c = 0; c < TILE; c++)
        for (int v = 0; v < V; v++) put(to + c * O + v * LANES, get(to + c * O + v * LANES) + sum[c][v]);
}

/* The gradient of the filters, [G, k, l, C, O]. */

void convolve_to_filters(const float *x, const float *grad, float *out, long B, long H, long W, long G, long C, long O,
                         long k, long l, long threads) {
    long h = H - k + 1, w = W - l + 1;
    SHARED for (long row = 0; row < G * k; row++) {
        long g = row / k, i = row % k;
        memset(out + row * l * C * O, 0, l * C * O * sizeof *out);
        for (long b = 0; b < B; b += IMAGES) {
            long images = b + IMAGES <= B ? IMAGES : B - b;
            for (long j = 0; j < l; j++)
                for (long c = 0; c < C; c += TILE) {
                    const float *pixels = x + (((b * H + i) * W + j) * G + g) * C + c;
                    const float *grads = grad + (b * h * w * G + g) * O;
                    float *to = out + ((row * l + j) * C + c) * O;
                    long o = 0;
                    for (; o + 2 * LANES <= O; o += 2 * LANES)
                        gather(pixels, grads + o, to + o, images, H, W, h, w, G, C, O, 2);
                    for (; o < O; o += LANES) gather(pixels, grads + o, to + o, images, H, W, h, w, G, C, O, 1);
                }
        }
    }
}
