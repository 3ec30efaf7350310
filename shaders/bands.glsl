// A mean or a maximum over the whole picture, in two steps: bands of rows, then these.
// Always in the same order, so that every run gives the same bits.

#define BANDS 64  // as many as invocations of a workgroup
#define GROUP_X BANDS
#define GROUP_Y 1
#include "upfrost.glsl"

layout(constant_id = 0) const uint MAXIMUM = 0;

const float NOTHING = MAXIMUM != 0 ? -3.0e38 : 0.0;

shared vec4 parts[BANDS];

vec4 joined(vec4 one, vec4 other)
{
    if (MAXIMUM != 0)
        return max(one, other);
    return one + other;
}

// The sum (or maximum) of what the workgroup's invocations have; all of them must call it.
vec4 total(vec4 mine)
{
    uint i = gl_LocalInvocationID.x;
    parts[i] = mine;
    barrier();
    for (uint reach = BANDS / 2; reach > 0; reach /= 2) {
        if (i < reach)
            parts[i] = joined(parts[i], parts[i + reach]);
        barrier();
    }
    return parts[0];
}
