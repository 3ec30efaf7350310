#version 450
// Interpolation of a value; one pixel of one quad an invocation.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Quad source[]; };
layout(binding = 1) writeonly buffer Target { Quad target[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
} push;

layout(constant_id = 0) const uint MODE = 1;
layout(constant_id = 1) const uint NUMERATOR = 1;
layout(constant_id = 2) const uint DENOMINATOR = 1;

#define FETCH_WIDTH push.source_width
#define FETCH_HEIGHT push.source_height
vec4 fetch(uint quad, uint x, uint y)
{
    return vec4(source[ELEMENT(source, quad, x, y)]);
}
#include "resample.glsl"

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint quad = gl_GlobalInvocationID.z;
    vec4 value = resample(MODE, quad, x, y);
    if (COVERED(target, x, y))
        target[ELEMENT(target, quad, x, y)]
            = Quad(inside_or_zero(value, INSIDE(target, x, y)));
}
