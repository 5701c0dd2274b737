/* The elementwise steps of a forward pass on a CPU, each in one walk over its memory.
 *
 * Some lanes at a time by the vector extensions of GCC and Clang, which become AVX-512, AVX2 or NEON.
 * Threads are the caller's: every function works on its own rows alone. NaN goes in and comes out.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

/* As many lanes as a register has, or two registers; sums of QUERIES by two of them stay in registers. */
#ifdef __AVX512F__
#define LANES 16
#define QUERIES 8
#else
#define LANES 8
#define QUERIES 4
#endif

#define KEYS (2 * LANES) /* keys of a block */
#define TILE 32          /* queries that go through a block while it is in the cache */

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

/* sums[query][0, 1] += rows[query][step] * columns[step][0, 1] over `steps`; columns are KEYS apart or
 * `column_stride`. What both products of attention come down to. */
static inline void product(reals sums[QUERIES][2], const float *rows, int64_t row_stride,
                           const float *columns, int64_t column_stride, int64_t steps)
{
    for (int64_t step = 0; step < steps; step++) {
        const reals one = loaded(columns + step * column_stride);
        const reals other = loaded(columns + step * column_stride + LANES);
#pragma GCC unroll 8
        for (int query = 0; query < QUERIES; query++) {
            const float factor = rows[query * row_stride + step];
            sums[query][0] += factor * one;
            sums[query][1] += factor * other;
        }
    }
}

/* Blocks of KEYS keys, each transposed to (width, KEYS), zero where the last one is not full. */
static void turn_keys(float *blocks, const float *keys, int64_t token_stride, int64_t from,
                      int64_t count, int64_t width)
{
    for (int64_t key = 0; key < count; key++) {
        float *block = blocks + (from + key) / KEYS * KEYS * width + (from + key) % KEYS;
        for (int64_t at = 0; at < width; at++) block[at * KEYS] = keys[key * token_stride + at];
    }
}

/* Floats that preceptor_attend needs as scratch. */
int64_t preceptor_attend_scratch(int64_t keys, int64_t width, int64_t value_width)
{
    const int64_t padded = (keys + KEYS - 1) / KEYS * KEYS;
    return padded * (width + value_width + TILE) + TILE * (width + value_width);
}

/* Attend causally: `queries` queries are the last positions of `shared + own` keys, and each sees the
 * `window` keys that end with its own, all before it where `window` is 0.
 *
 * Queries are (heads, queries, width), keys and values (key_heads, tokens, width or value_width), each given
 * by the strides of head and token; `out` is (queries, heads, value_width), contiguous. `shared` keys come
 * first and lie apart from the `own` ones. Widths must be multiples of KEYS.
 */
void preceptor_attend(const float *query, int64_t query_head, int64_t query_token, int64_t queries,
                      int64_t heads, const float *shared_key, const float *shared_value,
                      const int64_t *shared_strides, int64_t shared, const float *own_key,
                      const float *own_value, const int64_t *own_strides, int64_t own,
                      int64_t key_heads, int64_t width, int64_t value_width, float scale,
                      int64_t window, float *out, float *scratch)
{
    const int64_t keys = shared + own, padded = (keys + KEYS - 1) / KEYS * KEYS;
    float *turned = scratch, *values = turned + padded * width;
    float *weights = values + padded * value_width, *rows = weights + TILE * padded;
    float *mixed = rows + TILE * width;
    for (int64_t group = 0; group < key_heads; group++) {
        memset(turned + (padded - KEYS) * width, 0, (size_t)(KEYS * width) * sizeof(float));
        memset(values + (padded - KEYS) * value_width, 0, (size_t)(KEYS * value_width) * sizeof(float));
        turn_keys(turned, shared_key + group * shared_strides[0], shared_strides[1], 0, shared, width);
        turn_keys(turned, own_key + group * own_strides[0], own_strides[1], shared, own, width);
        for (int64_t key = 0; key < keys; key++) {
            const float *from = key < shared
                                    ? shared_value + group * shared_strides[2] + key * shared_strides[3]
                                    : own_value + group * own_strides[2] + (key - shared) * own_strides[3];
            memcpy(values + key * value_width, from, (size_t)value_width * sizeof(float));
        }
        for (int64_t head = group * (heads / key_heads); head < (group + 1) * (heads / key_heads); head++)
            for (int64_t first = 0; first < queries; first += TILE) {
                const int64_t count = queries - first < TILE ? queries - first : TILE;
                const int64_t position = keys - queries + first; /* of the tile's first query */
                int64_t from = window && position - window + 1 > 0 ? position - window + 1 : 0;
                from -= from % KEYS;
                const int64_t to = (position + count + KEYS - 1) / KEYS * KEYS;
                for (int64_t row = 0; row < TILE; row++) {
                    const int64_t taken = first + (row < count ? row : count - 1);
                    const float *at = query + head * query_head + taken * query_token;
                    for (int64_t place = 0; place < width; place++) rows[row * width + place] = at[place] * scale;
                }
                for (int64_t key = from; key < to; key += KEYS)
                    for (int64_t row = 0; row < count; row += QUERIES) {
                        reals sums[QUERIES][2] = {0};
                        product(sums, rows + row * width, width, turned + key * width, KEYS, width);
#pragma GCC unroll 8
                        for (int query = 0; query < QUERIES; query++) {
                            stored(weights + (row + query) * padded + key, sums[query][0]);
                            stored(weights + (row + query) * padded + key + LANES, sums[query][1]);
                        }
                    }
                float totals[TILE];
                for (int64_t row = 0; row < count + QUERIES - 1 - (count + QUERIES - 1) % QUERIES; row++) {
                    float *own_weights = weights + row * padded;
                    const int64_t at = position + (row < count ? row : count - 1);
                    const int64_t low = window && at - window + 1 > from ? at - window + 1 : from;
                    for (int64_t key = from; key < low; key++) own_weights[key] = -INFINITY;
                    for (int64_t key = at + 1; key < to; key++) own_weights[key] = -INFINITY;
                    reals largest = all(-INFINITY);
                    for (int64_t key = from; key < to; key += LANES) {
                        const reals here = loaded(own_weights + key);
                        largest = chosen(here > largest, here, largest);
                    }
                    float highest = -INFINITY;
                    for (int lane = 0; lane < LANES; lane++)
                        if (largest[lane] > highest) highest = largest[lane];
                    reals sums = all(0);
                    for (int64_t key = from; key < to; key += LANES) {
                        const reals lower = loaded(own_weights + key) - highest;
                        const whole far = lower < all(-87);
                        const reals weight = chosen(far, all(0), exponential(chosen(far, all(-87), lower)));
                        stored(own_weights + key, weight);
                        sums += weight;
                    }
                    totals[row] = sum(sums);
                }
                memset(mixed, 0, (size_t)(TILE * value_width) * sizeof(float));
                for (int64_t key = from; key < to; key += KEYS)
                    for (int64_t row = 0; row < count; row += QUERIES)
                        for (int64_t place = 0; place < value_width; place += KEYS) {
                            float *sums_at = mixed + row * value_width + place;
                            reals sums[QUERIES][2];
#pragma GCC unroll 8
                            for (int query = 0; query < QUERIES; query++) {
                                sums[query][0] = loaded(sums_at + query * value_width);
                                sums[query][1] = loaded(sums_at + query * value_width + LANES);
                            }
                            product(sums, weights + row * padded + key, padded,
                                    values + key * value_width + place, value_width, KEYS);
#pragma GCC unroll 8
                            for (int query = 0; query < QUERIES; query++) {
                                stored(sums_at + query * value_width, sums[query][0]);
                                stored(sums_at + query * value_width + LANES, sums[query][1]);
                            }
                        }
                for (int64_t row = 0; row < count; row++) {
                    float *to_row = out + ((first + row) * heads + head) * value_width;
                    for (int64_t place = 0; place < value_width; place++)
                        to_row[place] = mixed[row * value_width + place] / totals[row];
                }
            }
    }
}
