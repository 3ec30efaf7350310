#version 450
// Copies the channels of one value after others of a concatenation, where they begin
// inside a slice and no producer could write them in place. Lanes before FIRST are kept,
// lanes after the last channel become zeros.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Pack4 source[]; };
layout(binding = 1) buffer Target { Pack4 target[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
} push;

layout(constant_id = 0) const uint FIRST = 0;     // target channel of source channel 0
layout(constant_id = 1) const uint CHANNELS = 1;  // to copy

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint slice = FIRST / 4 + gl_GlobalInvocationID.z;
    if (!COVERED(target, x, y))
        return;
    uint element = ELEMENT(target, slice, x, y);
    vec4 value = vec4(0.0);
    if (4 * slice < FIRST)
        value = vec4(target[element]);
    for (uint lane = 0; lane < 4; lane++) {
        uint place = 4 * slice + lane;
        if (place >= FIRST) {
            uint channel = place - FIRST;
            vec4 v = vec4(0.0);
            if (channel < CHANNELS)
                v = vec4(source[ELEMENT(source, channel / 4, x, y)]);
            value[lane] = v[channel % 4];
        }
    }
    target[element] = Pack4(inside_or_zero(value, INSIDE(target, x, y)));
}
