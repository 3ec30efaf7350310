#version 450
// The largest number of each window; one pixel of one slice an invocation. A window that
// reaches over an edge holds the edge too, since padding is less than a kernel: reading
// the edge once more changes nothing.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Pack4 source[]; };
layout(binding = 1) writeonly buffer Target { Pack4 target[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
} push;

layout(constant_id = 0) const uint ROWS = 1;
layout(constant_id = 1) const uint COLUMNS = 1;
layout(constant_id = 2) const uint STRIDE_Y = 1;
layout(constant_id = 3) const uint STRIDE_X = 1;
layout(constant_id = 4) const uint PADDING_TOP = 0;
layout(constant_id = 5) const uint PADDING_LEFT = 0;

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint slice = gl_GlobalInvocationID.z;
    if (!COVERED(target, x, y))
        return;
    ivec2 last = ivec2(push.source_width, push.source_height) - 1;
    ivec2 corner = ivec2(x * STRIDE_X, y * STRIDE_Y) - ivec2(PADDING_LEFT, PADDING_TOP);
    vec4 value = vec4(-3.0e38);
    for (uint row = 0; row < ROWS; row++)
        for (uint column = 0; column < COLUMNS; column++) {
            uvec2 at = uvec2(clamp(corner + ivec2(column, row), ivec2(0), last));
            value = max(value, vec4(source[ELEMENT(source, slice, at.x, at.y)]));
        }
    target[ELEMENT(target, slice, x, y)]
        = Pack4(inside_or_zero(value, INSIDE(target, x, y)));
}
