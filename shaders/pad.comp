#version 450
// A value with more rows and columns around it, copies of its edge or mirrored in it, or
// with fewer; one pixel of one slice an invocation.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Pack4 source[]; };
layout(binding = 1) writeonly buffer Target { Pack4 target[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
} push;

layout(constant_id = 0) const bool REFLECT = false;
layout(constant_id = 1) const int TOP = 0;   // rows more above, negative: fewer
layout(constant_id = 2) const int LEFT = 0;

// The row or column of the source for one that may lie beyond its edges.
uint within(int place, uint extent)
{
    int last = int(extent) - 1;
    if (REFLECT)
        place = last - abs(last - abs(place));
    return uint(clamp(place, 0, last));
}

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint slice = gl_GlobalInvocationID.z;
    if (!COVERED(target, x, y))
        return;
    uint column = within(int(x) - LEFT, push.source_width);
    uint row = within(int(y) - TOP, push.source_height);
    vec4 value = vec4(source[ELEMENT(source, slice, column, row)]);
    target[ELEMENT(target, slice, x, y)]
        = Pack4(inside_or_zero(value, INSIDE(target, x, y)));
}
