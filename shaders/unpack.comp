#version 450
// Bytes of a picture to one quad a pixel; four pixels of a row an invocation.
#include "upfrost.glsl"
#include "bytes.glsl"

layout(binding = 0) readonly buffer Picture { uint picture[]; };
layout(binding = 1) writeonly buffer Target { Quad target[]; };
layout(push_constant) uniform Push
{
    LAYOUT(target);
    uint row_words;
} push;

void main()
{
    uint x = 4 * gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    vec4 pixel[4];
    for (uint i = 0; i < 4; i++)
        pixel[i] = vec4(0.0);
    if (INSIDE(target, x, y)) {
        uint word = HEADER + y * push.row_words + gl_GlobalInvocationID.x * CHANNELS;
        if (CHANNELS == 1) {
            vec4 grey = unpackUnorm4x8(picture[word]);
            for (uint i = 0; i < 4; i++)
                pixel[i].x = grey[i];
        } else {
            vec4 a = unpackUnorm4x8(picture[word]);
            vec4 b = unpackUnorm4x8(picture[word + 1]);
            vec4 c = unpackUnorm4x8(picture[word + 2]);
            pixel[0].xyz = a.xyz;
            pixel[1].xyz = vec3(a.w, b.xy);
            pixel[2].xyz = vec3(b.zw, c.x);
            pixel[3].xyz = c.yzw;
        }
    }
    for (uint i = 0; i < 4; i++)
        if (COVERED(target, x + i, y))
            target[ELEMENT(target, 0, x + i, y)]
                = Quad(inside_or_zero(pixel[i] * VALUE_RANGE, INSIDE(target, x + i, y)));
}
