#version 450
// The network's last step: pixel shuffle, the interpolated picture added or not, clamp,
// rounding (half up) to bytes. Four pixels of a row an invocation.
#include "upfrost.glsl"
#include "bytes.glsl"

layout(binding = 0) readonly buffer Source { Quad source[]; };
layout(binding = 1) writeonly buffer Picture { uint picture[]; };
layout(binding = 2) readonly buffer Given { uint given[]; };
layout(binding = 3) readonly buffer Skip { Quad skip[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(skip);
    uint width;
    uint height;
    uint row_words;
} push;

layout(constant_id = 2) const uint FACTOR = 1;  // of the pixel shuffle
layout(constant_id = 3) const uint SKIP = 0;    // interpolation of the skip, 0: none
layout(constant_id = 4) const uint NUMERATOR = 1;
layout(constant_id = 5) const uint DENOMINATOR = 1;

#define FETCH_WIDTH push.skip_width
#define FETCH_HEIGHT push.skip_height
vec4 fetch(uint quad, uint x, uint y)
{
    return vec4(skip[ELEMENT(skip, quad, x, y)]);
}
#include "resample.glsl"

vec4 shuffled(uint x, uint y)
{
    uint element = ELEMENT(source, 0, x / FACTOR, y / FACTOR);
    uint phase = y % FACTOR * FACTOR + x % FACTOR;
    vec4 value = vec4(0.0);
    for (uint c = 0; c < CHANNELS; c++) {
        uint channel = c * FACTOR * FACTOR + phase;
        vec4 v = vec4(source[element + channel / 4 * push.source_plane]);
        value[c] = v[channel % 4];
    }
    return value;
}

void main()
{
    uint x = 4 * gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    if (x >= push.width || y >= push.height)
        return;
    vec4 pixel[4];
    for (uint i = 0; i < 4; i++) {
        uint column = min(x + i, push.width - 1);
        pixel[i] = shuffled(column, y);
        if (SKIP != 0)
            pixel[i] += resample(SKIP, 0, column, y);
        pixel[i] = floor(clamp(pixel[i] / VALUE_RANGE, 0.0, 1.0) * 255.0 + 0.5);
    }
    uint word = HEADER + y * push.row_words + gl_GlobalInvocationID.x * CHANNELS;
    uvec4 b0 = uvec4(pixel[0]), b1 = uvec4(pixel[1]);
    uvec4 b2 = uvec4(pixel[2]), b3 = uvec4(pixel[3]);
    if (CHANNELS == 1) {
        picture[word] = b0.x | b1.x << 8 | b2.x << 16 | b3.x << 24;
    } else {
        picture[word] = b0.x | b0.y << 8 | b0.z << 16 | b1.x << 24;
        picture[word + 1] = b1.y | b1.z << 8 | b2.x << 16 | b2.y << 24;
        picture[word + 2] = b2.z | b3.x << 8 | b3.y << 16 | b3.z << 24;
    }
    if (x == 0 && y == 0)
        picture[0] = ~given[0];
}
