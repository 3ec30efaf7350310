#version 450
// Each slice's mean (or maximum), from its bands, at every pixel; a workgroup BANDS columns
// of ROWS rows.
#include "bands.glsl"

layout(binding = 0) readonly buffer Sums { vec4 sums[]; };
layout(binding = 1) writeonly buffer Target { Pack4 target[]; };
layout(push_constant) uniform Push { LAYOUT(target); } push;

const uint ROWS = 16;

void main()
{
    uint x = gl_GlobalInvocationID.x, slice = gl_WorkGroupID.z;
    vec4 sum = total(sums[slice * BANDS + gl_LocalInvocationID.x]);
    float pixels = float(push.target_width) * float(push.target_height);
    vec4 mean = sum / (MAXIMUM != 0 ? 1.0 : pixels);
    for (uint row = 0; row < ROWS; row++) {
        uint y = gl_WorkGroupID.y * ROWS + row;
        if (COVERED(target, x, y))
            target[ELEMENT(target, slice, x, y)]
                = Pack4(inside_or_zero(mean, INSIDE(target, x, y)));
    }
}
