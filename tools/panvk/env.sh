# Puts Mesa's Mali driver, without a Mali, under every Vulkan program of this shell.
#
# usage: . env.sh GPU     g31, g52, g72, g310, g610 or a product id in hexadecimal
#        . env.sh off     undoes it
#
# Everything above the kernel is real: limits, the compiler, pipelines. What is submitted
# "succeeds" and computes nothing.
case "${1:-}" in
    g31) PAN_GPU_ID=7093 ;;
    g52) PAN_GPU_ID=7402 ;;
    g72) PAN_GPU_ID=6221 ;;
    g310) PAN_GPU_ID=ac74 ;;
    g610) PAN_GPU_ID=a867 ;;
    off)
        unset PAN_GPU_ID LD_PRELOAD VK_DRIVER_FILES VK_ICD_FILENAMES \
            PAN_I_WANT_A_BROKEN_VULKAN_DRIVER MESA_SHADER_CACHE_DISABLE
        return 0
        ;;
    "")
        echo "usage: . env.sh GPU|off" >&2
        return 2
        ;;
    *) PAN_GPU_ID=$1 ;;
esac
_panvk=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PAN_GPU_ID
# Older loaders know only the second name.
export VK_DRIVER_FILES=$_panvk/panfrost_icd.json VK_ICD_FILENAMES=$_panvk/panfrost_icd.json
export LD_PRELOAD=$_panvk/libpanfrost_noop_drm_shim.so
export PAN_I_WANT_A_BROKEN_VULKAN_DRIVER=1 # Mesa 25.0 hides Bifrost without it
export MESA_SHADER_CACHE_DISABLE=1         # what is cached has no statistics
unset _panvk
