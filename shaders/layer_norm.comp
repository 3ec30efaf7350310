#version 450
// Each pixel's channels less their mean, by their deviation; in single precision. One
// pixel of all slices an invocation.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Pack4 source[]; };
layout(binding = 1) writeonly buffer Target { Pack4 target[]; };
layout(binding = 2) readonly buffer Parameters { vec4 parameters[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
    uint parameters_base;
} push;

layout(constant_id = 0) const uint CHANNELS = 1;
layout(constant_id = 1) const uint CENTRED = 1;
layout(constant_id = 2) const float EPSILON = 0.0;

const uint SLICES = (CHANNELS + 3) / 4;

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    if (!COVERED(target, x, y))
        return;
    float mean = 0.0;
    if (CENTRED != 0) {
        vec4 sum = vec4(0.0);
        for (uint slice = 0; slice < SLICES; slice++)
            sum += vec4(source[ELEMENT(source, slice, x, y)]);
        mean = dot(sum, vec4(1.0)) / float(CHANNELS);
    }
    vec4 squares = vec4(0.0);
    for (uint slice = 0; slice < SLICES; slice++) {
        vec4 part = vec4(source[ELEMENT(source, slice, x, y)]) - mean;
        bvec4 there = lessThan(4 * slice + uvec4(0, 1, 2, 3), uvec4(CHANNELS));
        part = mix(vec4(0.0), part, there);
        squares += part * part;
    }
    float scale = inversesqrt(dot(squares, vec4(1.0)) / float(CHANNELS) + EPSILON);
    for (uint slice = 0; slice < SLICES; slice++) {
        vec4 part = vec4(source[ELEMENT(source, slice, x, y)]) - mean;
        uint parameter = push.parameters_base + 3 * slice;
        // Weight and bias of lanes beyond the last channel are 0.
        part = part * scale * parameters[parameter + 1] + parameters[parameter];
        target[ELEMENT(target, slice, x, y)]
            = Pack4(inside_or_zero(part, INSIDE(target, x, y)));
    }
}
