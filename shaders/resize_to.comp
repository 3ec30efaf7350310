#version 450
// Interpolation of a value to another value's size; one pixel of one slice an invocation.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Pack4 source[]; };
layout(binding = 1) writeonly buffer Target { Pack4 target[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
} push;

layout(constant_id = 0) const uint MODE = 1;

#define RATIO_X uvec2(push.target_width, push.source_width)
#define RATIO_Y uvec2(push.target_height, push.source_height)
#define FETCH_WIDTH push.source_width
#define FETCH_HEIGHT push.source_height
vec4 fetch(uint slice, uint x, uint y)
{
    return vec4(source[ELEMENT(source, slice, x, y)]);
}
#include "resample.glsl"

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint slice = gl_GlobalInvocationID.z;
    vec4 value = resample(MODE, slice, x, y);
    if (COVERED(target, x, y))
        target[ELEMENT(target, slice, x, y)]
            = Pack4(inside_or_zero(value, INSIDE(target, x, y)));
}
