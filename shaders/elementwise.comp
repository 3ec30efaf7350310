#version 450
// A value with an epilogue, where no convolution could take it. One pixel of one slice an
// invocation.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Pack4 source[]; };
layout(binding = 1) writeonly buffer Target { Pack4 target[]; };
layout(binding = 2) readonly buffer Parameters { vec4 parameters[]; };
layout(binding = 3) readonly buffer Others { Pack4 others[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
    uint other_base;
    uint parameters_base;
} push;

layout(constant_id = 0) const uint CHANNELS = 1;
#include "epilogue.glsl"

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint slice = gl_GlobalInvocationID.z;
    if (!COVERED(target, x, y))
        return;
    uint element = ELEMENT(source, slice, x, y);
    vec4 value = vec4(source[element]);
    vec4 other = vec4(0.0);
    if (OTHER != 0)
        other = vec4(others[element - push.source_base + push.other_base]);
    value = finish(value, other, parameters[push.parameters_base + 3 * slice + 1]);
    bvec4 there = lessThan(4 * slice + uvec4(0, 1, 2, 3), uvec4(CHANNELS));
    value = mix(vec4(0.0), value, there);
    target[ELEMENT(target, slice, x, y)]
        = Pack4(inside_or_zero(value, INSIDE(target, x, y)));
}
