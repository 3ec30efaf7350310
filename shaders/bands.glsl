// A mean over the whole picture, in two steps: sums of bands of rows, then their sum.
// Always in the same order, so that every run gives the same bits.

#define BANDS 64  // as many as invocations of a workgroup
#define GROUP_X BANDS
#define GROUP_Y 1
#include "upfrost.glsl"

shared vec4 parts[BANDS];

// The sum of what the workgroup's invocations have; all of them must call it.
vec4 total(vec4 mine)
{
    uint i = gl_LocalInvocationID.x;
    parts[i] = mine;
    barrier();
    for (uint reach = BANDS / 2; reach > 0; reach /= 2) {
        if (i < reach)
            parts[i] += parts[i + reach];
        barrier();
    }
    return parts[0];
}
