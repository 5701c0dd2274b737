/* The elementwise steps of a forward pass on a CPU, each in one walk over its memory.
 *
 * Sixteen lanes at a time by the vector extensions of GCC and Clang, which become AVX-512, AVX2 or NEON.
 * Threads are the caller's: every function works on its own rows alone. NaN goes in and comes out.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16

typedef float reals __attribute__((vector_size(4 * LANES)));
typedef int32_t whole __attribute__((vector_size(4 * LANES)));

static inline reals all(float value) { return value - (reals){0}; }

static inline reals chosen(whole mask, reals yes, reals no)
{
    return (reals)((mask & (whole)yes) | (~mask & (whole)no));
}

static inline reals loaded(const float *at)
{
    reals values;
    memcpy(&values, at, sizeof values);
    return values;
}

/* The last `count` values of a row, the other lanes filled with `filler`. */
static inline reals last(const float *at, int64_t count, float filler)
{
    reals values = all(filler);
    memcpy(&values, at, (size_t)count * sizeof(float));
    return values;
}

static inline void stored(float *at, reals values) { memcpy(at, &values, sizeof values); }

static inline float sum(reals values)
{
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += values[lane];
    return total;
}

static inline reals bounded(reals values, float low, float high)
{
    values = chosen(values < all(low), all(low), values);
    return chosen(values > all(high), all(high), values);
}

/* e to the power of values within -87 and 88: 2^n times the Taylor series of what is left, to 1e-7. */
static inline reals exponential(reals values)
{
    const float to_whole = 12582912.0f; /* 1.5 * 2^23: adding it rounds, and leaves n in the low bits */
    reals shifted = values * 1.44269504f + to_whole;
    reals n = shifted - to_whole;
    reals rest = values - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2 in two parts */
    reals series = rest * (1.0f / 5040) + 1.0f / 720;
    series = series * rest + 1.0f / 120;
    series = series * rest + 1.0f / 24;
    series = series * rest + 1.0f / 6;
    series = series * rest + 0.5f;
    series = series * rest + 1.0f;
    series = series * rest + 1.0f;
    return series * (reals)(((whole)shifted << 23) + 0x3f800000);
}

/* Fold a tile of logits (rows, columns) into running statistics of each row.
 *
 * `first` is the vocabulary entry of the first column. `top` is the largest logit so far, `total` the sum of
 * exp(logit - top), `weighted` the sum of exp(logit - top) * (logit - top), `above` the number of entries
 * other than the target that are larger than `threshold`; `found` is the target's logit once it is met.
 */
void preceptor_fold(const float *logits, int64_t rows, int64_t columns, int64_t first,
                    const int64_t *targets, const float *thresholds, float *found, float *top,
                    double *total, double *weighted, float *above)
{
    for (int64_t row = 0; row < rows; row++) {
        const float *here = logits + row * columns;
        const int64_t even = columns - columns % LANES, left = columns - even;
        reals largest = all(-INFINITY);
        for (int64_t at = 0; at < even; at += LANES) {
            reals values = loaded(here + at);
            largest = chosen(values > largest, values, largest);
        }
        if (left) {
            reals values = last(here + even, left, -INFINITY);
            largest = chosen(values > largest, values, largest);
        }
        float highest = -INFINITY;
        for (int lane = 0; lane < LANES; lane++)
            if (largest[lane] > highest) highest = largest[lane];

        if (highest > top[row]) {
            if (total[row] > 0) {
                double lift = (double)top[row] - highest, scale = exp(lift);
                weighted[row] = scale * (weighted[row] + total[row] * lift);
                total[row] *= scale;
            }
            top[row] = highest;
        }
        const reals peak = all(top[row]), threshold = all(thresholds[row]);
        reals sums = all(0), products = all(0);
        for (int64_t at = 0; at < even; at += LANES) {
            reals lower = loaded(here + at) - peak;
            lower = chosen(lower < all(-87), all(-87), lower);
            reals weight = exponential(lower);
            sums += weight;
            products += weight * lower;
        }
        total[row] += sum(sums);
        weighted[row] += sum(products);
        for (int64_t at = even; at < columns; at++) {
            double lower = fmax((double)here[at] - top[row], -87), weight = exp(lower);
            if (isnan(here[at])) weight = NAN;
            total[row] += weight;
            weighted[row] += weight * lower;
        }

        const int64_t own = targets[row] - first;
        const int met = own >= 0 && own < columns;
        if (met) found[row] = here[own];
        if (!(highest > thresholds[row])) continue; /* most tokens are likelier than a whole tile */
        whole counts = {0};
        for (int64_t at = 0; at < even; at += LANES) counts -= loaded(here + at) > threshold;
        if (left) counts -= last(here + even, left, -INFINITY) > threshold;
        int64_t count = 0;
        for (int lane = 0; lane < LANES; lane++) count += counts[lane];
        above[row] += (float)(count - (met && here[own] > thresholds[row]));
    }
}

/* out = values / sqrt(mean(values^2) + epsilon) * (weight + offset), row by row of (rows, width). */
void preceptor_root_mean_square(const float *values, float *out, const float *weight, int64_t rows,
                                int64_t width, float epsilon, float offset)
{
    const int64_t even = width - width % LANES;
    for (int64_t row = 0; row < rows; row++) {
        const float *from = values + row * width;
        float *to = out + row * width;
        reals squares = all(0), more = all(0);
        int64_t at = 0;
        for (; at + 2 * LANES <= even; at += 2 * LANES) {
            reals one = loaded(from + at), other = loaded(from + at + LANES);
            squares += one * one;
            more += other * other;
        }
        for (; at < even; at += LANES) squares += loaded(from + at) * loaded(from + at);
        float total = sum(squares + more);
        for (at = even; at < width; at++) total += from[at] * from[at];
        const float factor = 1.0f / sqrtf(total / (float)width + epsilon);
        for (at = 0; at < even; at += LANES)
            stored(to + at, loaded(from + at) * factor * (loaded(weight + at) + offset));
        for (at = even; at < width; at++) to[at] = from[at] * factor * (weight[at] + offset);
    }
}

/* gate = activation(gate) * up over `count` values. With `slope` and `cube` the activation is
 * g / (1 + exp(-slope * (g + cube * g^3))): SiLU for (1, 0), the tanh form of GELU for
 * (2 * sqrt(2 / pi), 0.044715). */
void preceptor_gate(float *gate, const float *up, int64_t count, float slope, float cube)
{
    for (int64_t at = 0; at < count; at += LANES) {
        const int64_t here = count - at < LANES ? count - at : LANES;
        reals g = here == LANES ? loaded(gate + at) : last(gate + at, here, 0);
        reals u = here == LANES ? loaded(up + at) : last(up + at, here, 0);
        reals power = bounded((g + cube * g * g * g) * -slope, -87, 87);
        reals values = g / (1.0f + exponential(power)) * u;
        memcpy(gate + at, &values, (size_t)here * sizeof(float));
    }
}
