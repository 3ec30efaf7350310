#version 450
// A value, with another one added or not, then activation and clamp, where no
// convolution's epilogue could take them. One pixel of one quad an invocation.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Quad source[]; };
layout(binding = 1) writeonly buffer Target { Quad target[]; };
layout(binding = 2) readonly buffer Parameters { vec4 parameters[]; };
layout(binding = 3) readonly buffer Other { Quad other[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
    uint other_base;
} push;

layout(constant_id = 0) const bool ADD = false;
layout(constant_id = 1) const bool RECTIFY = false;
layout(constant_id = 2) const float LOW = -3.0e38;
layout(constant_id = 3) const float HIGH = 3.0e38;

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint quad = gl_GlobalInvocationID.z;
    if (!COVERED(target, x, y))
        return;
    uint element = ELEMENT(source, quad, x, y);
    vec4 value = vec4(source[element]);
    if (ADD)
        value += vec4(other[element - push.source_base + push.other_base]);
    if (RECTIFY)
        value = max(value, 0.0) + parameters[3 * quad + 1] * min(value, 0.0);
    value = clamp(value, LOW, HIGH);
    target[ELEMENT(target, quad, x, y)]
        = Quad(inside_or_zero(value, INSIDE(target, x, y)));
}
