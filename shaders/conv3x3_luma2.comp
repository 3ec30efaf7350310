#version 450
// The last 3×3 convolution of a network for luma that doubles it: a column of eight pixels
// and so 2 × 16 samples of the result an invocation. Pixel shuffle, the interpolated picture
// added or not, clamp, rounding (half up) to samples. In half precision, since neighbours
// write halves of a word.
#define LUMA
#include "half_sums.glsl"
#include "luma_samples.glsl"

// The picture's samples on a row, between its columns as those of the result lie.
vec2 line(int row)
{
    uint start = row_start(row), x = min(FIRST_X, push.target_width - 1);
    float middle = given_pixel(start + x).x;
    float left = given_pixel(start + max(x, 1) - 1).x;
    float right = given_pixel(start + min(x + 1, push.target_width - 1)).x;
    return 0.75 * middle + 0.25 * vec2(left, right);
}

void write(uint x, uint row, vec2 value)
{
    uvec2 bits = uvec2(clamp(value, LOW, HIGH) + 0.5);
    uint place = sample_place(2 * x, row);
    if (PIXEL_BYTES == 1) {
        picture[place] = unpackFloat2x16(bits.x | bits.y << 8).x;
    } else {
        f16vec2 pair = unpackFloat2x16((bits.x | bits.y << 16) << LOWEST_BIT);
        picture[place] = pair.x;
        picture[place + 1] = pair.y;
    }
}

#define FINISH(j) \
    { \
        vec4 value = STEPS * (vec4(sum[j]) + bias); \
        if (SKIP) { \
            after = line(int(y) + j + 1); \
            value += vec4(0.75 * at + 0.25 * before, 0.75 * at + 0.25 * after); \
            before = at; \
            at = after; \
        } \
        if (x < push.target_width && y + j < push.target_height) { \
            overflow += sum[j] * zero; \
            write(x, 2 * (y + j), value.xy); \
            write(x, 2 * (y + j) + 1, value.zw); \
        } \
    }

void main()
{
    uint x = FIRST_X, y = push.target_base + FIRST_Y;
    uint corner = ELEMENT(source, 0, x, FIRST_Y) - push.source_stride - 1;
    Pack4 sum[TILE_H] = half_sums(0, corner);
    vec4 bias = parameters[push.parameters_base];
    float16_t zero = nought();
    Pack4 overflow = Pack4(0.0);
    vec2 before, at, after;
    if (SKIP) {
        before = line(int(y) - 1);
        at = line(int(y));
    }
    FINISH(0) FINISH(1) FINISH(2) FINISH(3) FINISH(4) FINISH(5) FINISH(6) FINISH(7)
    report(overflow, x == 0 && FIRST_Y == 0);
}
