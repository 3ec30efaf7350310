#version 450
// The last 3×3 convolution of a network for luma that trebles it: 2×4 pixels and one row of
// each one's block of 3×3 an invocation, which is its output slice, so 6 × 4 samples of the
// result. Two pixels side by side, since their six bytes are whole halves of words. Pixel
// shuffle, the interpolated picture added or not, clamp, rounding (half up) to samples.
//
// Sums as in half_sums.glsl; a slice of weights serves both columns of pixels.
#define LUMA
#include "conv.glsl"
#include "luma_samples.glsl"

#define PRODUCTS(j, row, lane) \
    sum[j] += left[j + row].lane * tap; \
    sum[4 + j] += right[j + row].lane * tap;
#define CHANNEL(row, column, c, lane) \
    { \
        Pack4 tap = weights[weight + 4 * (3 * row + column) + c]; \
        PRODUCTS(0, row, lane) PRODUCTS(1, row, lane) \
        PRODUCTS(2, row, lane) PRODUCTS(3, row, lane) \
    }
#define TAP(row, column) \
    CHANNEL(row, column, 0, x) CHANNEL(row, column, 1, y) \
    CHANNEL(row, column, 2, z) CHANNEL(row, column, 3, w)

#define NEXT_ROW(value, r) \
    value[r] = source[element]; \
    element += push.source_stride;
#define READ(value, column) \
    element = corner + column; \
    NEXT_ROW(value, 0) NEXT_ROW(value, 1) NEXT_ROW(value, 2) \
    NEXT_ROW(value, 3) NEXT_ROW(value, 4) NEXT_ROW(value, 5)
#define TAPS(column) TAP(0, column) TAP(1, column) TAP(2, column)
#define SLICE \
    { \
        uint element; \
        Pack4 left[6], right[6]; \
        READ(left, 0) READ(right, 1) TAPS(0) \
        left = right; \
        READ(right, 2) TAPS(1) \
        left = right; \
        READ(right, 3) TAPS(2) \
    } \
    corner += push.source_plane; \
    weight += 36;

// The picture's samples on a row: before the two pixels, at both, and after.
vec4 samples_at(int row)
{
    uint first = row_start(row), x = FIRST_X, last = push.target_width - 1;
    return vec4(given_pixel(first + max(x, 1) - 1).x, given_pixel(first + x).x,
                given_pixel(first + min(x + 1, last)).x,
                given_pixel(first + min(x + 2, last)).x);
}

#define FINISH(j) \
    { \
        vec3 one = STEPS * (vec3(sum[j].xyz) + bias); \
        vec3 two = STEPS * (vec3(sum[4 + j].xyz) + bias); \
        if (SKIP) { \
            vec4 below = samples_at(top + j + 1); \
            vec4 at = share * above + (1.0 - share) * below; \
            above = below; \
            one += vec3((at.x + 2.0 * at.y) / 3.0, at.y, (2.0 * at.y + at.z) / 3.0); \
            two += vec3((at.y + 2.0 * at.z) / 3.0, at.z, (2.0 * at.z + at.w) / 3.0); \
        } \
        if (x < push.target_width && y + j < push.target_height) { \
            overflow += sum[j] * zero; \
            if (x + 1 < push.target_width) \
                overflow += sum[4 + j] * zero; \
            write(x, 3 * (y + j) + slice, one, two); \
        } \
    }

void write(uint x, uint row, vec3 one, vec3 two)
{
    uvec3 a = uvec3(clamp(one, LOW, HIGH) + 0.5), b = uvec3(clamp(two, LOW, HIGH) + 0.5);
    bool both = x + 1 < push.target_width;
    uint place = sample_place(3 * x, row);
    if (PIXEL_BYTES == 1) {
        f16vec2 first = unpackFloat2x16(a.x | a.y << 8 | a.z << 16 | b.x << 24);
        picture[place] = first.x;
        picture[place + 1] = first.y;
        if (both)
            picture[place + 2] = unpackFloat2x16(b.y | b.z << 8).x;
    } else {
        f16vec2 first = unpackFloat2x16((a.x | a.y << 16) << LOWEST_BIT);
        f16vec2 second = unpackFloat2x16((a.z | b.x << 16) << LOWEST_BIT);
        picture[place] = first.x;
        picture[place + 1] = first.y;
        picture[place + 2] = second.x;
        if (both) {
            f16vec2 third = unpackFloat2x16((b.y | b.z << 16) << LOWEST_BIT);
            picture[place + 3] = second.y;
            picture[place + 4] = third.x;
            picture[place + 5] = third.y;
        }
    }
}

void main()
{
    uint x = FIRST_X, y = push.target_base + FIRST_Y, slice = gl_WorkGroupID.x;
    uint corner = ELEMENT(source, 0, x, FIRST_Y) - push.source_stride - 1;
    uint weight = push.weights_base + slice * IN_SLICES * 36;
    Pack4 sum[8];
    for (int i = 0; i < 8; i++)
        sum[i] = Pack4(0.0);
    SLICE
    if (IN_SLICES > 1) {
        SLICE
    }
    if (IN_SLICES > 2) {
        SLICE
    }
    if (IN_SLICES > 3) {
        SLICE
    }
    vec3 bias = parameters[push.parameters_base + 3 * slice].xyz;
    float16_t zero = nought();
    Pack4 overflow = Pack4(0.0);
    // The first row of a block lies between the row of pixels above and its own, the last
    // one between its own and the one below.
    int top = int(y) - (slice == 0 ? 1 : 0);
    float share = slice == 0 ? 1.0 / 3.0 : slice == 1 ? 1.0 : 2.0 / 3.0;
    vec4 above;
    if (SKIP)
        above = samples_at(top);
    FINISH(0) FINISH(1) FINISH(2) FINISH(3)
    report(overflow, slice == 0 && x == 0 && FIRST_Y == 0);
}
