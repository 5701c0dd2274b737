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
#define QUERIES 12
#else
#define LANES 8
#define QUERIES 6
#endif

#define KEYS (2 * LANES) /* keys of a block */
#define TILE 48          /* queries that go through a block while it is in the cache */

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
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) values[lane] += values[lane + half];
    return values[0];
}

/* The largest number; NaN counts as none. */
static inline float most(reals values)
{
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++)
            values[lane] = values[lane + half] > values[lane] ? values[lane + half] : values[lane];
    return values[0];
}

static inline reals bounded(reals values, float low, float high)
{
    values = chosen(values < all(low), all(low), values);
    return chosen(values > all(high), all(high), values);
}

#define LOG2_E 1.44269504088896341
#define LOWEST -126.0f /* the least power of two that is a normal number */

/* 2 to the power of values within -126 and 127: 2^n times the polynomial of degree six that is nearest to
 * 2^rest, to 1e-7. NaN stays NaN, whatever its bits. */
static inline reals power_of_two(reals values)
{
    const float to_whole = 12583039.0f; /* 1.5 * 2^23 + 127: adding it rounds, and leaves 2^n's exponent below */
    const reals shifted = values + to_whole, rest = values - (shifted - to_whole);
    reals series = rest * 0.000153458116f + 0.00133999312f;
    series = series * rest + 0.00961848896f;
    series = series * rest + 0.0555032878f;
    series = series * rest + 0.240226469f;
    series = series * rest + 0.693147206f;
    series = series * rest + 1.0f;
    return series * (reals)((whole)shifted << 23);
}

/* Sums over a row of logits, with t = logit / ln 2 - top. */
typedef struct {
    float highest;           /* the largest logit */
    double total, weighted;  /* the sums of 2^t and of t * 2^t */
} Sums;

static inline Sums row_sums(const float *logits, int64_t columns, float top)
{
    const int64_t even = columns - columns % LANES, left = columns - even;
    reals highest = all(-INFINITY), total = all(0), weighted = all(0);
    for (int64_t at = 0; at < even; at += LANES) {
        const reals values = loaded(logits + at);
        highest = chosen(values > highest, values, highest);
        reals lower = values * (float)LOG2_E - top;
        lower = chosen(lower < all(LOWEST), all(LOWEST), lower);
        const reals weight = power_of_two(lower);
        total += weight;
        weighted += weight * lower;
    }
    Sums sums = {most(highest), sum(total), sum(weighted)};
    for (int64_t at = even; left && at < columns; at++) {
        if (logits[at] > sums.highest) sums.highest = logits[at];
        const double lower = fmax(logits[at] * LOG2_E - top, LOWEST);
        const double weight = isnan(logits[at]) ? NAN : exp2(lower);
        sums.total += weight;
        sums.weighted += weight * lower;
    }
    return sums;
}

/* Fold a tile of logits (rows, columns) into running statistics of each row.
 *
 * `first` is the vocabulary entry of the first column. `top` is about the largest logit so far, over ln 2; with
 * t = logit / ln 2 - top, `total` is the sum of 2^t, `weighted` that of t * 2^t. `above` counts the entries other
 * than the target that are larger than `threshold`; `found` is the target's logit once it is met.
 */
void preceptor_fold(const float *logits, int64_t rows, int64_t columns, int64_t first,
                    const int64_t *targets, const float *thresholds, float *found, float *top,
                    double *total, double *weighted, float *above)
{
    for (int64_t row = 0; row < rows; row++) {
        const float *here = logits + row * columns;
        Sums sums = row_sums(here, columns, top[row]);
        if (sums.highest * LOG2_E > top[row] + 20) { /* else 2^t stays so small that nothing is lost */
            const float risen = (float)(sums.highest * LOG2_E);
            if (total[row] > 0) {
                const double lift = (double)top[row] - risen, scale = exp2(lift);
                weighted[row] = scale * (weighted[row] + total[row] * lift);
                total[row] *= scale;
            }
            top[row] = risen;
            sums = row_sums(here, columns, risen);
        }
        total[row] += sums.total;
        weighted[row] += sums.weighted;

        const int64_t own = targets[row] - first;
        const int met = own >= 0 && own < columns;
        if (met) found[row] = here[own];
        if (!(sums.highest > thresholds[row])) continue; /* most tokens are likelier than a whole tile */
        const int64_t even = columns - columns % LANES;
        const reals threshold = all(thresholds[row]);
        whole counts = {0};
        for (int64_t at = 0; at < even; at += LANES) counts -= loaded(here + at) > threshold;
        int64_t count = 0;
        for (int lane = 0; lane < LANES; lane++) count += counts[lane];
        for (int64_t at = even; at < columns; at++) count += here[at] > thresholds[row];
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
        reals power = bounded((g + cube * g * g * g) * (-slope * (float)LOG2_E), LOWEST, -LOWEST);
        reals values = g / (1.0f + power_of_two(power)) * u;
        memcpy(gate + at, &values, (size_t)here * sizeof(float));
    }
}

/* Rotary position embedding in place, of (heads, tokens, width) given by the strides of head and token:
 * of each pair (i, i + width / 2), by the rows of `cosine` and `sine`, both (tokens, width). */
void preceptor_rotate(float *values, int64_t head_stride, int64_t token_stride, int64_t heads,
                      int64_t tokens, int64_t width, const float *cosine, const float *sine)
{
    const int64_t half = width / 2;
    for (int64_t token = 0; token < tokens; token++, cosine += width, sine += width)
        for (int64_t head = 0; head < heads; head++) {
            float *low = values + head * head_stride + token * token_stride, *high = low + half;
            int64_t at = 0;
            for (; at + LANES <= half; at += LANES) {
                const reals one = loaded(low + at), other = loaded(high + at);
                stored(low + at, one * loaded(cosine + at) - other * loaded(sine + at));
                stored(high + at, other * loaded(cosine + half + at) + one * loaded(sine + half + at));
            }
            for (; at < half; at++) {
                const float one = low[at], other = high[at];
                low[at] = one * cosine[at] - other * sine[at];
                high[at] = other * cosine[half + at] + one * sine[half + at];
            }
        }
}

/* sums[query][0, 1] += rows[query][step] * columns[step][0, 1] over `steps`; a step's columns are KEYS
 * numbers. What both products of attention come down to. */
static inline void product(reals sums[QUERIES][2], const float *rows, int64_t row_stride,
                           const float *columns, int64_t steps)
{
    for (int64_t step = 0; step < steps; step++) {
        const reals one = loaded(columns + step * KEYS);
        const reals other = loaded(columns + step * KEYS + LANES);
#pragma GCC unroll 12
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

/* Panels of KEYS columns of the values, each (padded, KEYS). */
static void part_values(float *panels, const float *values, int64_t token_stride, int64_t from,
                        int64_t count, int64_t value_width, int64_t padded)
{
    for (int64_t key = 0; key < count; key++)
        for (int64_t place = 0; place < value_width; place += KEYS)
            memcpy(panels + place * padded + (from + key) * KEYS, values + key * token_stride + place,
                   KEYS * sizeof(float));
}

/* Scores of one query, over ln 2, to weights that sum to the number returned; 0 outside of `low` to `high`. */
static float weigh(float *scores, int64_t from, int64_t low, int64_t high, int64_t to)
{
    for (int64_t key = from; key < low; key++) scores[key] = -INFINITY;
    for (int64_t key = high; key < to; key++) scores[key] = -INFINITY;
    reals largest = all(-INFINITY), other = largest; /* KEYS is two registers */
    for (int64_t key = from; key < to; key += KEYS) {
        const reals one = loaded(scores + key), two = loaded(scores + key + LANES);
        largest = chosen(one > largest, one, largest);
        other = chosen(two > other, two, other);
    }
    const float highest = most(chosen(other > largest, other, largest));
    reals sums = all(0);
    for (int64_t key = from; key < to; key += LANES) {
        const reals lower = loaded(scores + key) - highest;
        const whole far = lower < all(LOWEST);
        const reals weight = chosen(far, all(0), power_of_two(chosen(far, all(LOWEST), lower)));
        stored(scores + key, weight);
        sums += weight;
    }
    return sum(sums);
}

static int64_t padded_rows(int64_t rows) { return (rows + QUERIES - 1) / QUERIES * QUERIES; }

static int64_t padded_keys(int64_t keys) { return (keys + KEYS - 1) / KEYS * KEYS; }

/* Between rows of weights: not a power of two, whose rows would contend for the same places of the cache. */
static int64_t weight_stride(int64_t keys) { return padded_keys(keys) + LANES; }

/* Floats that preceptor_attend needs as scratch. */
int64_t preceptor_attend_scratch(int64_t keys, int64_t width, int64_t value_width)
{
    return padded_keys(keys) * (width + value_width) + TILE * (weight_stride(keys) + width);
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
    const int64_t keys = shared + own, padded = padded_keys(keys), stride = weight_stride(keys);
    float *turned = scratch, *panels = turned + padded * width;
    float *weights = panels + padded * value_width, *rows = weights + TILE * stride;
    memset(scratch, 0, (size_t)(padded * (width + value_width)) * sizeof(float));
    for (int64_t group = 0; group < key_heads; group++) {
        turn_keys(turned, shared_key + group * shared_strides[0], shared_strides[1], 0, shared, width);
        turn_keys(turned, own_key + group * own_strides[0], own_strides[1], shared, own, width);
        part_values(panels, shared_value + group * shared_strides[2], shared_strides[3], 0, shared,
                    value_width, padded);
        part_values(panels, own_value + group * own_strides[2], own_strides[3], shared, own,
                    value_width, padded);
        for (int64_t head = group * (heads / key_heads); head < (group + 1) * (heads / key_heads); head++)
            for (int64_t first = 0; first < queries; first += TILE) {
                const int64_t count = queries - first < TILE ? queries - first : TILE;
                int64_t from[TILE / QUERIES], to[TILE / QUERIES]; /* whole blocks that some query sees */
                for (int64_t row = 0; row < count; row += QUERIES) {
                    const int64_t low = keys - queries + first + row - window + 1;
                    const int64_t high = keys - queries + first + row + QUERIES;
                    from[row / QUERIES] = window && low > 0 ? low - low % KEYS : 0;
                    to[row / QUERIES] = high < keys ? padded_keys(high) : padded;
                }
                for (int64_t row = 0; row < TILE; row++) { /* the last query stands in for missing ones */
                    const int64_t taken = first + (row < count ? row : count - 1);
                    const float *at = query + head * query_head + taken * query_token;
                    for (int64_t place = 0; place < width; place++)
                        rows[row * width + place] = at[place] * (scale * (float)LOG2_E);
                }
                for (int64_t key = from[0]; key < to[(count - 1) / QUERIES]; key += KEYS)
                    for (int64_t row = 0; row < count; row += QUERIES) {
                        if (key < from[row / QUERIES] || key >= to[row / QUERIES]) continue;
                        reals sums[QUERIES][2] = {0};
                        product(sums, rows + row * width, width, turned + key * width, width);
#pragma GCC unroll 12
                        for (int query = 0; query < QUERIES; query++) {
                            stored(weights + (row + query) * stride + key, sums[query][0]);
                            stored(weights + (row + query) * stride + key + LANES, sums[query][1]);
                        }
                    }
                float shares[TILE];
                for (int64_t row = 0; row < padded_rows(count); row++) {
                    const int64_t at = keys - queries + first + (row < count ? row : count - 1);
                    const int64_t start = from[row / QUERIES], low = at - window + 1;
                    shares[row] = 1.0f / weigh(weights + row * stride, start,
                                               window && low > start ? low : start, at + 1, to[row / QUERIES]);
                }
                for (int64_t place = 0; place < value_width; place += KEYS)
                    for (int64_t row = 0; row < count; row += QUERIES) {
                        const int64_t start = from[row / QUERIES], steps = to[row / QUERIES] - start;
                        reals sums[QUERIES][2] = {0};
                        product(sums, weights + row * stride + start, stride,
                                panels + place * padded + start * KEYS, steps);
                        float *at = out + ((first + row) * heads + head) * value_width + place;
                        for (int query = 0; query < QUERIES && row + query < count; query++) {
                            stored(at + query * heads * value_width, sums[query][0] * shares[row + query]);
                            stored(at + query * heads * value_width + LANES, sums[query][1] * shares[row + query]);
                        }
                    }
            }
    }
}
