/* The gradient of the images of convolutions that see one channel: floats, a vector is pixels of a row. Products and
   sums are fused. Threads share images, so their number has no part in a result.
   B images, G groups of one channel and O filters of k x l; maps of H x W, results of h x w pixels. */

#include "vectors.h"

#define SPAN 32 /* pixels of a row at once, of ROWS rows: what fits into half of the registers */
#define ROWS 2
#define FILTERS 8 /* whose maps fit into the first cache */
#define VECTORS (SPAN / LANES)

#if defined __AVX512F__ || (defined __AVX__ && LANES == 8)
#define IN_REGISTER(v) __asm__("" : "+x"(v)) /* load it once: each product would from memory */
#else
#define IN_REGISTER(v)
#endif

#define EACH_VECTOR UNROLLED for (int v = 0; v < VECTORS; v++)

/* Add what N filters give to the sums of all pixels. apart: their gradients, whose rows have zeros at both ends. */

INLINE void add_filters(const float *apart, const float *filters, float *sums, long H, long pitch, long span, long h,
                        long k, long l, long N) {
    for (long r = 0; r < H; r += ROWS)
        for (long x = 0; x < span; x += SPAN) {
            floats sum[ROWS][VECTORS];
            float *to = sums + r * span + x;
            for (int row = 0; row < ROWS; row++) EACH_VECTOR sum[row][v] = get(to + row * span + v * LANES);
            for (long n = 0; n < N; n++)
                for (long y = MAX(r - k + 1, 0); y < MIN(r + ROWS, h); y++) {
                    const float *first = filters + (n * (k + 2) + r - y + 1) * l, *second = first + l;
                    const float *from = apart + (n * h + y) * pitch + l - 1 + x;
                    for (long j = 0; j < l; j++)
                        EACH_VECTOR {
                            floats some = get(from - j + v * LANES);
                            IN_REGISTER(some);
                            sum[0][v] += some * first[j];
                            sum[1][v] += some * second[j];
                        }
                }
            for (int row = 0; row < ROWS; row++) EACH_VECTOR put(to + row * span + v * LANES, sum[row][v]);
        }
}

INLINE void take_apart(const float *grad, float *apart, long h, long w, long pixel, long pitch, long N) {
    for (long y = 0; y < h; y++)
        for (long x = 0; x < w; x++, grad += pixel)
            UNROLLED for (long n = 0; n < N; n++) apart[(n * h + y) * pitch + x] = grad[n];
}

/* filters: [G, O, k + 2, l], with a row of zeros at each end, so that a row of the gradient serves ROWS of the result;
   out: [B, G, H, W]. */

void thin_to_image(const float *grad, const float *filters, float *out, long B, long H, long W, long G, long O, long k,
                   long l, long threads) {
    long h = H - k + 1, w = W - l + 1, span = (W + SPAN - 1) / SPAN * SPAN, pitch = span + l - 1;
    SHARED for (long image = 0; image < B * G; image++) {
        long b = image / G, g = image % G;
        float sums[(H + ROWS - 1) * span], apart[FILTERS * h * pitch];
        memset(sums, 0, sizeof sums);
        memset(apart, 0, sizeof apart);
        for (long o = 0; o < O; o += FILTERS) {
            long N = MIN(FILTERS, O - o);
            const float *from = grad + (b * h * w * G + g) * O + o;
            N == FILTERS ? take_apart(from, apart + l - 1, h, w, G * O, pitch, FILTERS)
                         : take_apart(from, apart + l - 1, h, w, G * O, pitch, N);
            add_filters(apart, filters + (g * O + o) * (k + 2) * l, sums, H, pitch, span, h, k, l, N);
        }
        for (long r = 0; r < H; r++) memcpy(out + (image * H + r) * W, sums + r * span, W * sizeof *out);
    }
}
