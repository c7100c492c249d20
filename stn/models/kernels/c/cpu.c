/* Kernels for CPUs, where PyTorch's move more memory: floats with channels last, so that a vector is eight channels of
   one pixel. compiled.py builds them. Threads share the images, so their number has no part in a result.
   B images, H x W their pixels, D channels side by side, a multiple of VECTOR. */

#include <math.h>
#include <stdint.h>

#define VECTOR 8
#define LANES VECTOR
#include "vectors.h"

typedef int32_t ints __attribute__((vector_size(4 * VECTOR)));
typedef int8_t bytes __attribute__((vector_size(VECTOR)));

static inline floats choose(ints test, floats yes, floats no) {
    return (floats)((test & (ints)yes) | (~test & (ints)no));
}

static inline float sum(floats v) {
    float total = 0;
    for (int i = 0; i < VECTOR; i++) total += v[i];
    return total;
}

/* Max-pooling of squares of 2x2. A place is 0 to 3; the first of equal pixels wins, and NaN wins over all. */

void max_pool(const float *x, float *out, int8_t *place, long B, long H, long W, long D, long threads) {
    long h = H / 2, w = W / 2;
    SHARED for (long b = 0; b < B; b++)
        for (long i = 0; i < h; i++)
            for (long j = 0; j < w; j++) {
                const float *corner = x + ((b * H + 2 * i) * W + 2 * j) * D;
                long to = ((b * h + i) * w + j) * D;
                for (long d = 0; d < D; d += VECTOR) {
                    floats best = get(corner + d);
                    ints at = {0};
                    for (int n = 1; n < 4; n++) {
                        floats v = get(corner + ((n / 2) * W + n % 2) * D + d);
                        ints larger = (v > best) | (v != v);
                        best = choose(larger, v, best);
                        at = (larger & n) | (~larger & at);
                    }
                    put(out + to + d, best);
                    bytes small = __builtin_convertvector(at, bytes);
                    memcpy(place + to + d, &small, sizeof small);
                }
            }
}

/* The gradient of the pool's input: all of it is written, once. */

void max_pool_gradient(const float *grad, const int8_t *place, float *out, long B, long H, long W, long D,
                       long threads) {
    long h = H / 2, w = W / 2;
    SHARED for (long b = 0; b < B; b++)
        for (long y = 0; y < H; y++) {
            long from = (b * h + y / 2) * w * D, inside = y / 2 < h ? 2 * w : 0;
            float *row = out + (b * H + y) * W * D;
            for (long j = 0; j < inside / 2; j++)
                for (long d = 0; d < D; d += VECTOR) {
                    bytes small;
                    memcpy(&small, place + from + j * D + d, sizeof small);
                    ints at = __builtin_convertvector(small, ints) - (int)(y % 2 * 2);
                    ints v = (ints)get(grad + from + j * D + d);
                    put(row + 2 * j * D + d, (floats)(v & (at == 0)));
                    put(row + (2 * j + 1) * D + d, (floats)(v & (at == 1)));
                }
            memset(row + inside * D, 0, (W - inside) * D * sizeof *row);
        }
}

/* Bilinear samples. S seeds lie side by side in a pixel, C channels each; a grid has P points, [S, B, P, 2], x and y
   in [-1, 1]: scale * (x + 1) + shift in pixels. Outside are zeros, or (border) the pixels at the edge. */

typedef struct {
    long at[4]; /* of the pixels around a point, in floats; -1 outside */
    float weight[4], u, v;
    float slope_x, slope_y; /* pixels by which the point moves with the grid */
} Point;

static inline float place_on(float x, long size, int border, float scale, float shift, float *slope) {
    float at = (x + 1) * scale + shift;
    *slope = border && !(at > 0 && at < size - 1) ? 0 : scale;
    return !border ? at : !(at > 0) ? 0 : at < size - 1 ? at : size - 1;
}

static inline int find(Point *point, const float *xy, long H, long W, long pixel, int border, float scale_x,
                       float scale_y, float shift) {
    float x = place_on(xy[0], W, border, scale_x, shift, &point->slope_x);
    float y = place_on(xy[1], H, border, scale_y, shift, &point->slope_y);
    if (!(x >= -1 && x < W && y >= -1 && y < H)) return 0; /* not a number is outside, too */
    long left = (long)floorf(x), top = (long)floorf(y);
    float u = point->u = x - left, v = point->v = y - top;
    for (int n = 0; n < 4; n++) {
        long column = left + n % 2, row = top + n / 2;
        int inside = column >= 0 && column < W && row >= 0 && row < H;
        point->at[n] = inside ? (row * W + column) * pixel : -1;
        point->weight[n] = (n % 2 ? u : 1 - u) * (n / 2 ? v : 1 - v);
    }
    return 1;
}

/* What a point that is no number, or infinite, adds to its sample: not a number, as in PyTorch's. Borders hold it. */

static inline float lost(const float *xy, long border) {
    return border ? 0 : xy[0] * 0 + xy[1] * 0;
}

void sample(const float *x, const float *grid, float *out, long S, long B, long H, long W, long C, long P, long border,
            float scale_x, float scale_y, float shift, long threads) {
    SHARED for (long b = 0; b < B; b++)
        for (long s = 0; s < S; s++)
            for (long p = 0; p < P; p++) {
                Point point;
                const float *image = x + b * H * W * S * C + s * C, *xy = grid + ((s * B + b) * P + p) * 2;
                float *o = out + ((b * P + p) * S + s) * C;
                int seen = find(&point, xy, H, W, S * C, border, scale_x, scale_y, shift);
                for (long c = 0; c < C; c += VECTOR) {
                    floats total = (floats){0} + lost(xy, border);
                    for (int n = 0; seen && n < 4; n++)
                        if (point.at[n] >= 0) total += get(image + point.at[n] + c) * point.weight[n];
                    put(o + c, total);
                }
            }
}

/* The gradients of maps and grid; the maps' must be zeros. */

void sample_gradient(const float *grad, const float *x, const float *grid, float *to_image, float *to_grid, long S,
                     long B, long H, long W, long C, long P, long border, float scale_x, float scale_y, float shift,
                     long threads) {
    SHARED for (long b = 0; b < B; b++)
        for (long s = 0; s < S; s++)
            for (long p = 0; p < P; p++) {
                Point point = {{0}, {0}, 0, 0, 0, 0};
                long image = b * H * W * S * C + s * C, at = ((s * B + b) * P + p) * 2;
                const float *g = grad + ((b * P + p) * S + s) * C;
                floats product[4] = {{0}}; /* of the gradient with each pixel */
                int seen = find(&point, grid + at, H, W, S * C, border, scale_x, scale_y, shift);
                for (int n = 0; seen && n < 4; n++)
                    for (long c = 0; point.at[n] >= 0 && c < C; c += VECTOR) {
                        long pixel = image + point.at[n] + c;
                        floats v = get(g + c);
                        product[n] += v * get(x + pixel);
                        put(to_image + pixel, get(to_image + pixel) + v * point.weight[n]);
                    }
                float u = point.u, v = point.v;
                floats right = (product[1] - product[0]) * (1 - v) + (product[3] - product[2]) * v;
                floats down = (product[2] - product[0]) * (1 - u) + (product[3] - product[1]) * u;
                to_grid[at] = point.slope_x * sum(right) + lost(grid + at, border);
                to_grid[at + 1] = point.slope_y * sum(down) + lost(grid + at, border);
            }
}

/* Bilinear samples of images with black pixels around, one before and two after, at positions in pixels from the
   image's centre, [M, P], as stn.data.geometry takes them. */

static inline int32_t whole_part(float at, float most, float *rest) {
    at = !(at > 0) ? 0 : at > most ? most : at; /* not a number is 0 */
    int32_t whole = (int32_t)at;
    *rest = at - whole;
    return whole;
}

void resample(const float *dark, const float *x, const float *y, float *out, long M, long C, long h, long w, long P,
              long threads) {
    int32_t pitch = w + 3;
    SHARED for (long m = 0; m < M * C; m++) {
        const float *image = dark + m * (h + 3) * pitch, *columns = x + m / C * P, *rows = y + m / C * P;
        for (long p = 0; p < P; p++) {
            float u, v;
            int32_t left = whole_part(columns[p] + (w + 1) / 2.0f, w + 1, &u);
            int32_t first = whole_part(rows[p] + (h + 1) / 2.0f, h + 1, &v) * pitch + left;
            float a = image[first], b = image[first + 1], c = image[first + pitch], d = image[first + pitch + 1];
            float upper = a + (b - a) * u, lower = c + (d - c) * u;
            out[m * P + p] = upper + (lower - upper) * v;
        }
    }
}

/* Sums over the l columns of a kernel, each shifted by its column: [B, H, w, D, l] to [B, D, H, W], without pad pixels
   at each end. Additions are in the order of columns. */

void add_columns(const float *x, float *out, long B, long H, long w, long D, long l, long W, long pad, long threads) {
    SHARED for (long row = 0; row < B * H; row++) {
        const float *pixels = x + row * w * D * l;
        for (long d = 0; d < D; d++) {
            float *to = out + ((row / H * D + d) * H + row % H) * W;
            memset(to, 0, W * sizeof *to);
            for (long j = 0; j < l; j++) {
                long first = j < pad ? pad - j : 0, end = W + pad - j < w ? W + pad - j : w;
                for (long i = first; i < end; i++) to[i + j - pad] += pixels[i * D * l + d * l + j];
            }
        }
    }
}
