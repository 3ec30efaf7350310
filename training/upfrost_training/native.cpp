// Loss and gradients of a plain luma network over a batch of crops; see native.py.
//
// A picture's values lie channels last, one vector register of eight channels (or two,
// or more) a pixel, inside a border of one pixel of zeros. Every sum over channels and
// taps is a row of fused multiply-adds of a broadcast value with such a register.
// Vectors are GCC's and Clang's own, so this compiles for any CPU.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace {

typedef float Lanes16 __attribute__((vector_size(64)));
typedef float Lanes8 __attribute__((vector_size(32)));
typedef float Lanes4 __attribute__((vector_size(16)));

template <typename Lanes>
constexpr int width_of = sizeof(Lanes) / sizeof(float);

// Values need not be aligned.
template <typename Lanes>
inline Lanes load(const float *from)
{
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

template <typename Lanes>
inline void store(float *to, Lanes lanes) { std::memcpy(to, &lanes, sizeof lanes); }

// Side of a square of values with its border.
inline int padded(int side) { return side + 2; }

// target (side, side, OUT lanes) = bias + the 3x3 convolution of source (IN channels),
// both with borders. Weights are [ky][kx][in][out].
template <int IN, int OUT, typename Lanes>
__attribute__((noinline)) void convolve(const float *source, const float *weights, const float *bias,
              float *target, int side)
{
    constexpr int W = width_of<Lanes>, VECTORS = OUT / W;
    constexpr int TILE = 12 / VECTORS;  // pixels: with them, twelve sums in registers
    const int row = padded(side);
    for (int y = 0; y < side; ++y)
        for (int x = 0; x < side; x += TILE) {
            Lanes sums[TILE][VECTORS];
#pragma GCC unroll 12
            for (int t = 0; t < TILE; ++t)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v)
                    sums[t][v] = bias ? load<Lanes>(bias + v * W) : Lanes{};
            for (int tap = 0; tap < 9; ++tap) {
                const float *values = source + ((y + tap / 3) * row + x + tap % 3) * IN;
                const float *w = weights + tap * IN * OUT;
                for (int i = 0; i < IN; ++i)
#pragma GCC unroll 12
                    for (int t = 0; t < TILE; ++t)
#pragma GCC unroll 4
                        for (int v = 0; v < VECTORS; ++v)
                            sums[t][v] += values[t * IN + i] *
                                          load<Lanes>(w + i * OUT + v * W);
            }
            float *result = target + ((y + 1) * row + x + 1) * OUT;
#pragma GCC unroll 12
            for (int t = 0; t < TILE; ++t)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v)
                    store(result + t * OUT + v * W, sums[t][v]);
        }
}

// gradients [ky][kx][a][b] += the sum over pixels of outer (A channels), moved by the
// tap, times inner (B channels, in vectors). Both have borders.
template <int A, int B, typename Lanes>
__attribute__((noinline)) void correlate(const float *outer, const float *inner, float *gradients, int side)
{
    constexpr int W = width_of<Lanes>, GROUP = A % 4 ? 1 : 4;
    const int row = padded(side);
    for (int ky = 0; ky < 3; ++ky)
        for (int first = 0; first < A; first += GROUP)
            for (int vector = 0; vector < B; vector += W) {
                Lanes sums[3][GROUP] = {};
                for (int y = 0; y < side; ++y) {
                    const float *a = outer + (y + ky) * row * A + first;
                    const float *b = inner + (y + 1) * row * B + vector;
                    // A value of `outer` meets three neighbours; the border is zero.
                    Lanes left = {}, middle = {};
                    for (int x = 0; x < row; ++x) {
                        const Lanes right = x < row - 1 ? load<Lanes>(b + (x + 1) * B)
                                                        : Lanes{};
                        for (int i = 0; i < GROUP; ++i) {
                            const float value = a[x * A + i];
                            sums[0][i] += value * right;
                            sums[1][i] += value * middle;
                            sums[2][i] += value * left;
                        }
                        left = middle;
                        middle = right;
                    }
                }
                for (int kx = 0; kx < 3; ++kx)
                    for (int i = 0; i < GROUP; ++i) {
                        float *sum = gradients +
                                     ((ky * 3 + kx) * A + first + i) * B + vector;
                        store(sum, load<Lanes>(sum) + sums[kx][i]);
                    }
            }
}

// Bilinear upscaling at pixel centres, the edge repeated, as torch's `interpolate`.
struct Bilinear {
    std::vector<int> low, high;
    std::vector<float> share;

    Bilinear(int side, int scale)
    {
        for (int i = 0; i < side * scale; ++i) {
            float place = (i + 0.5f) / scale - 0.5f;
            if (place < 0) place = 0;
            const int first = static_cast<int>(place);
            low.push_back(first);
            high.push_back(first + 1 < side ? first + 1 : side - 1);
            share.push_back(place - first);
        }
    }
};

// C channels, S scale; OUT is S * S rounded up to whole vectors of `Last`.
template <int C, int S>
struct Network {
    static constexpr int OUT = (S * S + 3) / 4 * 4;
#ifdef __AVX512F__
    typedef typename std::conditional<C % 16 == 0, Lanes16, Lanes8>::type Wide;
#else
    typedef Lanes8 Wide;
#endif
    typedef Lanes4 Last;
    static constexpr int W = width_of<Wide>;

    int depth, side;
    const float *parameters;
    float *gradients;
    std::vector<float> lr, values, before, out, flow, other, turned;
    Bilinear skip;

    Network(int depth, int side, const float *parameters, float *gradients)
        : depth(depth), side(side), parameters(parameters), gradients(gradients),
          lr(area()), values(area() * C * (depth + 1)), before(values.size()),
          out(area() * OUT), flow(area() * C), other(area() * C),
          turned(9 * C * (C > OUT ? C : OUT)), skip(side, S)
    {
    }

    size_t area() const { return size_t(padded(side)) * padded(side); }
    float *hidden(std::vector<float> &all, int layer) { return &all[layer * area() * C]; }

    // Where a layer's numbers begin: kernel, bias, slopes; the last has no slopes.
    static constexpr int first_size = 9 * C + 2 * C, inner_size = 9 * C * C + 2 * C;
    int offset(int layer) const
    {
        return layer == 0 ? 0 : first_size + (layer - 1) * inner_size;
    }
    int kernel_size(int layer) const { return layer == 0 ? 9 * C : 9 * C * C; }

    void activate(int layer)
    {
        const float *slopes = parameters + offset(layer) + kernel_size(layer) + C;
        const float *z = hidden(before, layer);
        float *a = hidden(values, layer);
        for (int vector = 0; vector < C; vector += W) {
            const Wide slope = load<Wide>(slopes + vector);
            for (int y = 1; y <= side; ++y)
                for (int x = 1; x <= side; ++x) {
                    const int i = (y * padded(side) + x) * C + vector;
                    const Wide sum = load<Wide>(z + i);
                    store(a + i, sum > 0 ? sum : slope * sum);
                }
        }
    }

    // Turns the gradient of a layer's values in `flow` into that of its sums.
    void activate_back(int layer)
    {
        const int slopes_at = offset(layer) + kernel_size(layer) + C;
        const float *z = hidden(before, layer);
        for (int vector = 0; vector < C; vector += W) {
            const Wide slope = load<Wide>(parameters + slopes_at + vector);
            Wide biases = {}, slopes = {};
            for (int y = 1; y <= side; ++y)
                for (int x = 1; x <= side; ++x) {
                    const int i = (y * padded(side) + x) * C + vector;
                    const Wide sum = load<Wide>(z + i), g = load<Wide>(&flow[i]);
                    slopes += sum > 0 ? Wide{} : g * sum;
                    const Wide kept = sum > 0 ? g : slope * g;
                    biases += kept;
                    store(&flow[i], kept);
                }
            float *bias_gradient = gradients + slopes_at - C + vector;
            float *slope_gradient = gradients + slopes_at + vector;
            store(bias_gradient, load<Wide>(bias_gradient) + biases);
            store(slope_gradient, load<Wide>(slope_gradient) + slopes);
        }
    }

    // The kernel of the convolution's gradient: taps reversed, in and out exchanged.
    const float *turn(const float *kernel, int in, int out_channels)
    {
        for (int tap = 0; tap < 9; ++tap)
            for (int i = 0; i < in; ++i)
                for (int o = 0; o < out_channels; ++o)
                    turned[((8 - tap) * out_channels + o) * in + i] =
                        kernel[(tap * in + i) * out_channels + o];
        return turned.data();
    }

    // One crop: its loss, and `share` times its gradient added to `gradients`.
    double crop(const uint8_t *low, const uint8_t *high, int kind, float share)
    {
        const int row = padded(side);
        for (int y = 0; y < side; ++y)
            for (int x = 0; x < side; ++x)
                lr[(y + 1) * row + x + 1] = low[y * side + x] / 255.0f;
        convolve<1, C, Wide>(lr.data(), parameters, parameters + 9 * C,
                             hidden(before, 0), side);
        activate(0);
        for (int layer = 1; layer <= depth; ++layer) {
            const float *kernel = parameters + offset(layer);
            convolve<C, C, Wide>(hidden(values, layer - 1), kernel,
                                 kernel + 9 * C * C, hidden(before, layer), side);
            activate(layer);
        }
        const float *last = parameters + offset(depth + 1);
        convolve<C, OUT, Last>(hidden(values, depth), last, last + 9 * C * OUT,
                               out.data(), side);
        const double loss = compare(high, kind, share);
        back_propagate(last);
        return loss;
    }

    // The loss; `out`, which held the residual, holds its gradient afterwards.
    double compare(const uint8_t *high, int kind, float share)
    {
        const int row = padded(side), large = side * S;
        double absolute = 0, square = 0;
        for (int y = 0; y < large; ++y) {
            const float *upper = &lr[(skip.low[y] + 1) * row + 1];
            const float *lower = &lr[(skip.high[y] + 1) * row + 1];
            const float dy = skip.share[y];
            float row_absolute = 0, row_square = 0;
            for (int x = 0; x < large; ++x) {
                const int l = skip.low[x], h = skip.high[x];
                const float dx = skip.share[x];
                const float top = upper[l] + dx * (upper[h] - upper[l]);
                const float bottom = lower[l] + dx * (lower[h] - lower[l]);
                float &value = out[((y / S + 1) * row + x / S + 1) * OUT +
                                   y % S * S + x % S];
                value += top + dy * (bottom - top) - high[y * large + x] / 255.0f;
                row_absolute += std::fabs(value);
                row_square += value * value;
            }
            absolute += row_absolute;
            square += row_square;
        }
        const double pixels = double(large) * large;
        const double rms = std::sqrt(square / pixels + 1e-10);
        const float scale = share / (kind == 0 ? pixels : pixels * rms);
        Last used;
        for (int y = 1; y <= side; ++y)
            for (int x = 1; x <= side; ++x)
                for (int first = 0; first < OUT; first += 4) {
                    for (int o = 0; o < 4; ++o)
                        used[o] = first + o < S * S ? scale : 0.0f;
                    float *difference = &out[(y * row + x) * OUT + first];
                    const Last d = load<Last>(difference);
                    const Last sign = d > 0 ? used : d < 0 ? -used : Last{};
                    store(difference, kind == 0 ? sign : used * d);
                }
        return kind == 0 ? absolute / pixels : rms;
    }

    void back_propagate(const float *last)
    {
        const int row = padded(side);
        float *kernel_gradient = gradients + offset(depth + 1);
        correlate<C, OUT, Last>(hidden(values, depth), out.data(), kernel_gradient,
                                side);
        float *bias_gradient = kernel_gradient + 9 * C * OUT;
        for (int first = 0; first < OUT; first += 4) {
            Last sum = load<Last>(bias_gradient + first);
            for (int y = 1; y <= side; ++y)
                for (int x = 1; x <= side; ++x)
                    sum += load<Last>(&out[(y * row + x) * OUT + first]);
            store(bias_gradient + first, sum);
        }
        convolve<OUT, C, Wide>(out.data(), turn(last, C, OUT), nullptr, flow.data(),
                               side);
        for (int layer = depth; layer > 0; --layer) {
            activate_back(layer);
            correlate<C, C, Wide>(hidden(values, layer - 1), flow.data(),
                                  gradients + offset(layer), side);
            convolve<C, C, Wide>(flow.data(), turn(parameters + offset(layer), C, C),
                                 nullptr, other.data(), side);
            flow.swap(other);
        }
        activate_back(0);
        correlate<1, C, Wide>(lr.data(), flow.data(), gradients, side);
    }
};

template <int C, int S>
double run(const uint8_t *low, const uint8_t *high, int crops, int side, int depth,
           const float *parameters, float *gradients, int kind, float share)
{
    Network<C, S> network(depth, side, parameters, gradients);
    double loss = 0;
    for (int n = 0; n < crops; ++n)
        loss += share * network.crop(low + size_t(n) * side * side,
                                     high + size_t(n) * side * side * S * S, kind,
                                     share);
    return loss;
}

}  // namespace

// The loss of `crops` crops, each weighed by `share`; its gradients are added to
// `gradients`. `kind` is 0 for L1, 1 for the root of a crop's mean square. NaN if no
// network of these channels and scale was compiled.
extern "C" double upfrost_gradients(const uint8_t *low, const uint8_t *high, int crops,
                                    int side, int channels, int scale, int depth,
                                    const float *parameters, float *gradients,
                                    int kind, float share)
{
    if (channels == 8 && scale == 2)
        return run<8, 2>(low, high, crops, side, depth, parameters, gradients, kind,
                         share);
    if (channels == 8 && scale == 3)
        return run<8, 3>(low, high, crops, side, depth, parameters, gradients, kind,
                         share);
    if (channels == 16 && scale == 2)
        return run<16, 2>(low, high, crops, side, depth, parameters, gradients, kind,
                          share);
    return NAN;
}
