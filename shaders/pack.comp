#version 450
// The network's last step: pixel shuffle, the interpolated picture added or not, clamp,
// rounding (half up) to samples. Four pixels of a row an invocation.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Pack4 source[]; };
layout(binding = 1) writeonly buffer Picture { uint picture[]; };
layout(binding = 2) readonly buffer Given { uint given[]; };
layout(binding = 3) readonly buffer Skip { Pack4 skip[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(skip);
    uint width;
    uint height;
    uint row_words;
} push;

layout(constant_id = 0) const uint PIXEL = 3;       // see bytes.glsl
layout(constant_id = 1) const float STEPS = 255.0;  // of a sample, in one
layout(constant_id = 2) const uint FACTOR = 1;      // of the pixel shuffle
layout(constant_id = 3) const uint SKIP = 0;        // its interpolation, 0: none
layout(constant_id = 4) const uint NUMERATOR = 1;
layout(constant_id = 5) const uint DENOMINATOR = 1;
layout(constant_id = 6) const bool SKIP_GIVEN = false;  // the skip is the picture itself

layout(constant_id = 7) const float LOW = 0.0;      // what a sample may be
layout(constant_id = 8) const float HIGH = 255.0;

#include "bytes.glsl"

#define FETCH_WIDTH push.skip_width
#define FETCH_HEIGHT push.skip_height
vec4 fetch(uint slice, uint x, uint y)
{
    uint element = ELEMENT(skip, slice, x, y);
    return SKIP_GIVEN ? given_pixel(element) : vec4(skip[element]);
}
#include "resample.glsl"

void main()
{
    uint x = 4 * gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    if (x >= push.width || y >= push.height)
        return;
    vec4 pixel[4];
    // Where FACTOR divides four, the pixels' places in the blocks of the shuffle are known
    // beforehand. What is spelled out for this saves loads and selections.
    const bool known = 4 % FACTOR == 0;
    uint row = y % FACTOR;
    vec4 block[3];
    for (uint i = 0; i < 4; i++) {
        uint column = known ? x / FACTOR + i / FACTOR : (x + i) / FACTOR;
        uint place = known ? i % FACTOR : (x + i) % FACTOR;
        uint element = ELEMENT(source, 0, column, y / FACTOR);
        pixel[i] = vec4(0.0);
        for (uint c = 0; c < SAMPLES; c++) {
            uint channel = (c * FACTOR + row) * FACTOR + place;
            uint slice = FACTOR == 2 ? c : FACTOR == 4 ? 4 * c + row : channel / 4;
            uint lane = FACTOR == 4 ? place : channel % 4;
            if (!known || place == 0)
                block[c] = vec4(source[element + slice * push.source_plane]);
            pixel[i][c] = block[c][lane] * STEPS;
        }
    }
    const float steps = SKIP_GIVEN ? 1.0 : STEPS;
    if (SKIP == BILINEAR && DENOMINATOR == 1 && 4 % NUMERATOR == 0) {
        vec4 line[4] = bilinear_line(0, x, y);
        for (uint i = 0; i < 4; i++)
            pixel[i] += line[i] * steps;
    } else if (SKIP != 0) {
        for (uint i = 0; i < 4; i++)
            pixel[i] += resample(SKIP, 0, x + i, y) * steps;
    }
    // What is not a number, infinite, or so large that sums overflowed on its way (bits of
    // 6e29) becomes no picture: word 1 says so, by the token. By bits, since compilers may
    // take numbers for finite ones.
    uint largest = 0;
    for (uint i = 0; i < 4; i++) {
        uvec4 size = floatBitsToUint(pixel[i]) & 0x7FFFFFFF;
        uint each = max(max(size.x, size.y), size.z);
        largest = max(largest, x + i < push.width ? each : 0);
    }
    if (largest >= 0x71000000)
        picture[1] = given[0];
    for (uint i = 0; i < 4; i++)
        pixel[i] = floor(clamp(pixel[i], LOW, HIGH) + 0.5);
    uint word = HEADER + y * push.row_words + gl_GlobalInvocationID.x * PIXEL_BYTES;
    uvec4 b0 = uvec4(pixel[0]), b1 = uvec4(pixel[1]);
    uvec4 b2 = uvec4(pixel[2]), b3 = uvec4(pixel[3]);
    if (PIXEL_BYTES == 1) {
        picture[word] = b0.x | b1.x << 8 | b2.x << 16 | b3.x << 24;
    } else if (PIXEL_BYTES == 2) {
        picture[word] = (b0.x | b1.x << 16) << LOWEST_BIT;
        picture[word + 1] = (b2.x | b3.x << 16) << LOWEST_BIT;
    } else {
        picture[word] = b0.x | b0.y << 8 | b0.z << 16 | b1.x << 24;
        picture[word + 1] = b1.y | b1.z << 8 | b2.x << 16 | b2.y << 24;
        picture[word + 2] = b2.z | b3.x << 8 | b3.y << 16 | b3.z << 24;
    }
    if (x == 0 && y == 0)
        picture[0] = ~given[0];
}
