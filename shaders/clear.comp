#version 450
// Zeros before the first plane of a buffer: what a convolution reads above and to the
// left of the picture. No other kernel writes there.
layout(local_size_x = 64) in;
layout(binding = 0) writeonly buffer Target { uint target[]; };
layout(push_constant) uniform Push { uint words; } push;

void main()
{
    if (gl_GlobalInvocationID.x < push.words)
        target[gl_GlobalInvocationID.x] = 0;
}
