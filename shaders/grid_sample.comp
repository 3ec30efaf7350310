#version 450
// A value taken from where another says, bilinear, edges replicated; one pixel of one
// slice an invocation.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Pack4 source[]; };
layout(binding = 1) writeonly buffer Target { Pack4 target[]; };
layout(binding = 2) readonly buffer Moves { Pack4 moves[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
    uint moves_base;
} push;

layout(constant_id = 0) const uint FACTOR = 2;
layout(constant_id = 1) const uint GROUPS = 4;
layout(constant_id = 2) const uint GROUP_CHANNELS = 4;

const float FARTHEST = 2097152.0;  // beyond every value's edges

// The source's row (or column) before the place of result row `position`, moved by
// `offset`, and how far behind that row the place lies. The row that the place would
// have unmoved is counted in integers, so that a tile samples with the same weights as
// the whole picture.
float place(uint position, float offset, out int before)
{
    uint shifted = 2 * position + 1 + FACTOR;  // in halves of a row of the result
    float phase = float(shifted % (2 * FACTOR)) / float(2 * FACTOR);
    float moved = clamp(phase + offset, -FARTHEST, FARTHEST);
    float whole = floor(moved);
    before = int(shifted / (2 * FACTOR)) - 1 + int(whole);
    return moved - whole;
}

float move(uint channel, uint element)
{
    uint plane = push.target_plane;  // of values of one size, all are alike
    return float(moves[push.moves_base + channel / 4 * plane + element][channel % 4]);
}

vec4 fetch(uint slice, int x, int y)
{
    uint column = uint(clamp(x, 0, int(push.source_width) - 1));
    uint row = uint(clamp(y, 0, int(push.source_height) - 1));
    return vec4(source[ELEMENT(source, slice, column, row)]);
}

vec4 sample_group(uint group, uint slice, uint x, uint y)
{
    uint element = y * push.target_stride + x;
    int left, top;
    float u = place(x, move(group, element), left);
    float v = place(y, move(GROUPS + group, element), top);
    vec4 upper = (1.0 - u) * fetch(slice, left, top) + u * fetch(slice, left + 1, top);
    vec4 lower = (1.0 - u) * fetch(slice, left, top + 1)
        + u * fetch(slice, left + 1, top + 1);
    return (1.0 - v) * upper + v * lower;
}

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint slice = gl_GlobalInvocationID.z;
    if (!COVERED(target, x, y))
        return;
    vec4 value = vec4(0.0);
    if (GROUP_CHANNELS % 4 == 0 || GROUPS == 1) {
        value = sample_group(4 * slice / GROUP_CHANNELS, slice, x, y);
    } else {
        for (uint lane = 0; lane < 4; lane++) {
            // Lanes beyond the last channel hold zeros in every group's places.
            uint group = min((4 * slice + lane) / GROUP_CHANNELS, GROUPS - 1);
            value[lane] = sample_group(group, slice, x, y)[lane];
        }
    }
    target[ELEMENT(target, slice, x, y)]
        = Pack4(inside_or_zero(value, INSIDE(target, x, y)));
}
