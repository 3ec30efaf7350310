#version 450
// Bytes of the picture to one slice a pixel, where no convolution can read them itself. One
// pixel an invocation.
#include "upfrost.glsl"

layout(constant_id = 0) const uint PIXEL = 3;    // see bytes.glsl
layout(constant_id = 1) const float UNIT = 1.0;  // what one step of a sample stands for
layout(binding = 0) readonly buffer Given { uint given[]; };
layout(binding = 1) writeonly buffer Target { Pack4 target[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
} push;
#include "bytes.glsl"

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    if (!COVERED(target, x, y))
        return;
    // The margin holds zeros in both.
    target[ELEMENT(target, 0, x, y)]
        = Pack4(given_pixel(ELEMENT(source, 0, x, y)) * UNIT);
}
