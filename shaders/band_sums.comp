#version 450
// Sums (or maxima) of each slice's pixels in BANDS bands of rows; a workgroup a band of a slice.
// Neighbouring invocations read neighbouring columns.
#include "bands.glsl"

layout(binding = 0) readonly buffer Source { Pack4 source[]; };
layout(binding = 1) writeonly buffer Sums { vec4 sums[]; };
layout(push_constant) uniform Push { LAYOUT(source); } push;

void main()
{
    uint band = gl_WorkGroupID.x, slice = gl_WorkGroupID.z;
    uint rows = (push.source_height + BANDS - 1) / BANDS;
    uint last = min((band + 1) * rows, push.source_height);
    vec4 sum = vec4(NOTHING);
    for (uint y = band * rows; y < last; y++)
        for (uint x = gl_LocalInvocationID.x; x < push.source_width; x += BANDS)
            sum = joined(sum, vec4(source[ELEMENT(source, slice, x, y)]));
    sum = total(sum);
    if (gl_LocalInvocationID.x == 0)
        sums[slice * BANDS + band] = sum;
}
