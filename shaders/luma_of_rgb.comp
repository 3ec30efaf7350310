#version 450
// Luma of a picture of RGB, laid out as the picture that a network for luma reads. Two
// samples, which are a word, an invocation.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Given { uint given[]; };
layout(binding = 1) writeonly buffer Target { uint target[]; };
layout(push_constant) uniform Push
{
    uint given_stride;  // pixels
    LAYOUT(target);
} push;

#include "luma.glsl"
#define PIXEL 3
#include "bytes.glsl"

void main()
{
    uint x = 2 * gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    if (!COVERED(target, x, y))
        return;
    uint word = 0;
    for (uint i = 0; i < 2; i++) {
        // The margin holds zeros.
        if (INSIDE(target, x + i, y)) {
            vec3 rgb = given_pixel(y * push.given_stride + x + i).rgb;
            word |= uint(STEPS * (BLACK + GAIN * luma_of(rgb)) + 0.5) << (16 * i);
        }
    }
    target[HEADER + ELEMENT(target, 0, x, y) / 2] = word;
    if (x == 0 && y == 0)
        target[0] = given[0];
}
