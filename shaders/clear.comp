#version 450
// Zeros from a word of a buffer on. Before the first plane: what a convolution reads above
// and to the left of the picture, where no other kernel writes. Of a whole buffer: the
// margins that kernels then leave as they are.
layout(local_size_x = 64) in;
layout(binding = 0) writeonly buffer Target { uint target[]; };
layout(push_constant) uniform Push { uint first; uint words; } push;

void main()
{
    uint word = push.first + gl_GlobalInvocationID.x;
    if (word < push.words)
        target[word] = 0;
}
