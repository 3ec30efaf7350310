#version 450
// 3×3 convolution of few channels, stride 1, one zero of padding, in half precision: a
// column of twelve pixels of one output slice an invocation. What follows the sum is in half
// precision, too, where it is a bias and a rectifier. The grid covers the whole plane.
#include "half_sums.glsl"

#define PLAIN \
    (OTHER == 0 && ACTIVATION <= RECTIFY && LOW < -1.0e38 && HIGH > 1.0e38)

#ifdef BYTES
#define BIASED(sum) Pack4(vec4(sum) * UNIT + parameters[parameter])
#else
#define BIASED(sum) (sum + bias)
#endif

#define FINISH(j) \
    if (PLAIN) { \
        Pack4 value = BIASED(sum[j]); \
        if (ACTIVATION == RECTIFY) \
            value = max(value, Pack4(0.0)) + slope * min(value, Pack4(0.0)); \
        target[ELEMENT(target, slice, x, y + j)] \
            = mix(Pack4(0.0), value, bvec4(INSIDE(target, x, y + j))); \
    } else { \
        store(vec4(sum[j]), slice, x, y + j); \
    }

void main()
{
    uint x = FIRST_X, y = FIRST_Y, slice = gl_WorkGroupID.x;
    uint corner = ELEMENT(source, 0, x, y) - push.source_stride - 1;
    Pack4 sum[TILE_H] = half_sums(slice, corner);
    uint parameter = push.parameters_base + 3 * slice;
    Pack4 bias = Pack4(parameters[parameter]);
    Pack4 slope = Pack4(parameters[parameter + 1]);
    FINISH(0) FINISH(1) FINISH(2) FINISH(3) FINISH(4) FINISH(5)
    FINISH(6) FINISH(7) FINISH(8) FINISH(9) FINISH(10) FINISH(11)
}
