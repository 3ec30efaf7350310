// Catmull-Rom's cubic: weights of the four samples around a point, `t` after the second.
vec4 catmull_rom(float t)
{
    const float a = -0.5;
    vec4 d = vec4(1.0 + t, t, 1.0 - t, 2.0 - t);
    vec4 near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    vec4 far = ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
    return vec4(far.x, near.y, near.z, far.w);
}
