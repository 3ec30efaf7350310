// What every kernel shares: element types and the layout of a value.
//
// A value lies in a storage buffer as planes of four channels ("slices"), each plane
// `plane` elements long and each row `stride`. The pixels (0, 0) of plane 0 are at
// element `base`. Beyond the `width` × `height` pixels of the picture every row and
// plane has a margin of zeros, so that a convolution may read outside the picture, to
// the left as well (the end of the row before) and above (the end of the plane before).
// A kernel writes its whole planes, the margin as zeros, or what of them its workgroups
// cover that have a pixel: where only values of one layout share a buffer, its margins are
// zeros from the beginning.
//
// FP16 is defined for the variants that store values and weights in half precision.

#ifdef FP16
#extension GL_AMD_gpu_shader_half_float : require
#define Scalar float16_t
#define Pack4 f16vec4
#else
#define Scalar float
#define Pack4 vec4
#endif

#ifndef GROUP_X
#define GROUP_X 8
#define GROUP_Y 8
#endif
layout(local_size_x = GROUP_X, local_size_y = GROUP_Y) in;

// The layout of one value among a kernel's push constants.
#define LAYOUT(name) \
    uint name##_base; uint name##_stride; uint name##_plane; uint name##_width; \
    uint name##_height

#define ELEMENT(name, slice, x, y) \
    (push.name##_base + (slice) * push.name##_plane + (y) * push.name##_stride + (x))

// By vectors, since && would branch.
#define INSIDE(name, x, y) \
    all(lessThan(uvec2(x, y), uvec2(push.name##_width, push.name##_height)))

// Rows and columns of the whole plane, margin included.
#define COVERED(name, x, y) \
    ((x) < push.name##_stride && (y) < push.name##_plane / push.name##_stride)

// A scalar condition between two vectors is not valid SPIR-V 1.0: hence mix().
vec4 inside_or_zero(vec4 value, bool inside)
{
    return mix(vec4(0.0), value, bvec4(inside));
}
