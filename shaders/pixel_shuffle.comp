#version 450
// Channels to pixels: channel c·r² + i·r + j becomes pixel (i, j) of the r × r block of
// channel c. One pixel of one output slice an invocation.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Pack4 source[]; };
layout(binding = 1) writeonly buffer Target { Pack4 target[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
} push;

layout(constant_id = 0) const uint FACTOR = 1;
layout(constant_id = 1) const uint CHANNELS = 1;  // of the output

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint slice = gl_GlobalInvocationID.z;
    vec4 value = vec4(0.0);
    if (INSIDE(target, x, y)) {
        uint phase = y % FACTOR * FACTOR + x % FACTOR;
        for (uint lane = 0; lane < 4; lane++) {
            uint channel = (4 * slice + lane) * FACTOR * FACTOR + phase;
            if (4 * slice + lane < CHANNELS) {
                vec4 v = vec4(
                    source[ELEMENT(source, channel / 4, x / FACTOR, y / FACTOR)]);
                value[lane] = v[channel % 4];
            }
        }
    }
    if (COVERED(target, x, y))
        target[ELEMENT(target, slice, x, y)] = Pack4(value);
}
