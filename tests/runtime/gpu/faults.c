/* Vulkan with faults, for LD_PRELOAD under the loader's library.
 *
 * VK_FAULT=CALL:NUMBER:RESULT   the NUMBERth call of CALL, counted from 1, returns
 *                               RESULT (a VkResult's number) and does nothing, but
 *                               for waiting;
 *                               NUMBER+: that one and all after it
 * VK_FAULT_LOG=FILE             each call's name is appended, a line each
 * VK_FAULT_TIME=FILE            when each failed is appended, nanoseconds of the
 *                               monotonic clock, a line each
 * VK_FAULT_INCOHERENT=1         memory that the host caches is not coherent
 * VK_FAULT_NO_HALF=1            Vulkan's features say nothing of half precision
 * VK_FAULT_GPU=1                every device says that it is a GPU
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

static void *real(const char *name)
{
    static void *library;
    if (!library)
        library = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
    return library ? dlsym(library, name) : NULL;
}

/* Append a line to the file that a variable names, if it does. */
static void append(const char *variable, const char *line)
{
    const char *path = getenv(variable);
    const int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (file < 0)
        return;
    char whole[128];
    const int length = snprintf(whole, sizeof whole, "%s\n", line);
    if (write(file, whole, length) != length)
        abort();
    close(file);
}

static int fault(const char *name, atomic_int *count, VkResult *result)
{
    const int number = atomic_fetch_add(count, 1) + 1;
    append("VK_FAULT_LOG", name);
    const char *fault = getenv("VK_FAULT");
    const size_t length = strlen(name);
    if (!fault || strncmp(fault, name, length) || fault[length] != ':')
        return 0;
    char *end;
    const long wanted = strtol(fault + length + 1, &end, 10);
    const int onward = *end == '+';
    *result = (VkResult)atoi(end + onward + 1);
    if (onward ? number < wanted : number != wanted)
        return 0;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    char text[32];
    snprintf(text, sizeof text, "%lld", now.tv_sec * 1000000000LL + now.tv_nsec);
    append("VK_FAULT_TIME", text);
    return 1;
}

#define WRAP(name, parameters, arguments)                                      \
    VKAPI_ATTR VkResult VKAPI_CALL name parameters                             \
    {                                                                          \
        static atomic_int count;                                               \
        VkResult result;                                                       \
        if (fault(#name, &count, &result))                                     \
            return result;                                                     \
        return ((PFN_##name)real(#name))arguments;                             \
    }

#define CREATE(name, info, handle)                                             \
    WRAP(name,                                                                 \
         (VkDevice device, const info *create,                                 \
          const VkAllocationCallbacks *callbacks, handle *made),               \
         (device, create, callbacks, made))

CREATE(vkCreateBuffer, VkBufferCreateInfo, VkBuffer)
CREATE(vkCreateCommandPool, VkCommandPoolCreateInfo, VkCommandPool)
CREATE(vkCreateDescriptorPool, VkDescriptorPoolCreateInfo, VkDescriptorPool)
CREATE(vkCreateDescriptorSetLayout, VkDescriptorSetLayoutCreateInfo,
       VkDescriptorSetLayout)
CREATE(vkCreateFence, VkFenceCreateInfo, VkFence)
CREATE(vkCreatePipelineCache, VkPipelineCacheCreateInfo, VkPipelineCache)
CREATE(vkCreatePipelineLayout, VkPipelineLayoutCreateInfo, VkPipelineLayout)
CREATE(vkCreateShaderModule, VkShaderModuleCreateInfo, VkShaderModule)
WRAP(vkCreateInstance,
     (const VkInstanceCreateInfo *create, const VkAllocationCallbacks *callbacks,
      VkInstance *made),
     (create, callbacks, made))
WRAP(vkEnumeratePhysicalDevices,
     (VkInstance instance, uint32_t *count_, VkPhysicalDevice *devices),
     (instance, count_, devices))
WRAP(vkCreateDevice,
     (VkPhysicalDevice device, const VkDeviceCreateInfo *create,
      const VkAllocationCallbacks *callbacks, VkDevice *made),
     (device, create, callbacks, made))
WRAP(vkCreateComputePipelines,
     (VkDevice device, VkPipelineCache cache, uint32_t number,
      const VkComputePipelineCreateInfo *create,
      const VkAllocationCallbacks *callbacks, VkPipeline *made),
     (device, cache, number, create, callbacks, made))
WRAP(vkGetPipelineCacheData,
     (VkDevice device, VkPipelineCache cache, size_t *size, void *data),
     (device, cache, size, data))
WRAP(vkBindBufferMemory,
     (VkDevice device, VkBuffer buffer, VkDeviceMemory memory, VkDeviceSize offset),
     (device, buffer, memory, offset))
WRAP(vkMapMemory,
     (VkDevice device, VkDeviceMemory memory, VkDeviceSize offset,
      VkDeviceSize size, VkMemoryMapFlags flags, void **data),
     (device, memory, offset, size, flags, data))
WRAP(vkAllocateDescriptorSets,
     (VkDevice device, const VkDescriptorSetAllocateInfo *info,
      VkDescriptorSet *sets),
     (device, info, sets))
WRAP(vkAllocateCommandBuffers,
     (VkDevice device, const VkCommandBufferAllocateInfo *info,
      VkCommandBuffer *buffers),
     (device, info, buffers))
WRAP(vkBeginCommandBuffer,
     (VkCommandBuffer buffer, const VkCommandBufferBeginInfo *info),
     (buffer, info))
WRAP(vkEndCommandBuffer, (VkCommandBuffer buffer), (buffer))
WRAP(vkResetFences, (VkDevice device, uint32_t number, const VkFence *fences),
     (device, number, fences))
WRAP(vkQueueSubmit,
     (VkQueue queue, uint32_t number, const VkSubmitInfo *infos, VkFence fence),
     (queue, number, infos, fence))
WRAP(vkFlushMappedMemoryRanges,
     (VkDevice device, uint32_t number, const VkMappedMemoryRange *ranges),
     (device, number, ranges))
WRAP(vkInvalidateMappedMemoryRanges,
     (VkDevice device, uint32_t number, const VkMappedMemoryRange *ranges),
     (device, number, ranges))

/* Memory as some integrated GPUs have it: a type that is coherent and not cached, and
 * one that is cached and not coherent. Both are the device's own first type. */

static int incoherent(void) { return getenv("VK_FAULT_INCOHERENT") != NULL; }

VKAPI_ATTR void VKAPI_CALL
vkGetPhysicalDeviceMemoryProperties(VkPhysicalDevice device,
                                    VkPhysicalDeviceMemoryProperties *properties)
{
    ((PFN_vkGetPhysicalDeviceMemoryProperties)real(__func__))(device, properties);
    if (incoherent()) {
        VkMemoryType *types = properties->memoryTypes;
        properties->memoryTypeCount = 2;
        types[1] = types[0];
        types[0].propertyFlags &= ~VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
        types[1].propertyFlags &= ~VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    }
}

VKAPI_ATTR void VKAPI_CALL vkGetBufferMemoryRequirements(
    VkDevice device, VkBuffer buffer, VkMemoryRequirements *requirements)
{
    ((PFN_vkGetBufferMemoryRequirements)real(__func__))(device, buffer, requirements);
    if (incoherent())
        requirements->memoryTypeBits = 3;
}

VKAPI_ATTR VkResult VKAPI_CALL
vkAllocateMemory(VkDevice device, const VkMemoryAllocateInfo *info,
                 const VkAllocationCallbacks *callbacks, VkDeviceMemory *memory)
{
    static atomic_int count;
    VkResult result;
    if (fault(__func__, &count, &result))
        return result;
    VkMemoryAllocateInfo asked = *info;
    if (incoherent())
        asked.memoryTypeIndex = 0;
    return ((PFN_vkAllocateMemory)real(__func__))(device, &asked, callbacks, memory);
}

VKAPI_ATTR void VKAPI_CALL vkGetPhysicalDeviceProperties(
    VkPhysicalDevice device, VkPhysicalDeviceProperties *properties)
{
    ((PFN_vkGetPhysicalDeviceProperties)real(__func__))(device, properties);
    if (getenv("VK_FAULT_GPU"))
        properties->deviceType = VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
}

/* Drivers are asked for these by name. */

static VKAPI_ATTR void VKAPI_CALL without_half(VkPhysicalDevice device,
                                               VkPhysicalDeviceFeatures2 *features);
static PFN_vkGetPhysicalDeviceFeatures2KHR with_half;

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vkGetInstanceProcAddr(VkInstance instance,
                                                               const char *name)
{
    PFN_vkVoidFunction found =
        ((PFN_vkGetInstanceProcAddr)real(__func__))(instance, name);
    if (!getenv("VK_FAULT_NO_HALF") || strcmp(name, "vkGetPhysicalDeviceFeatures2KHR"))
        return found;
    with_half = (PFN_vkGetPhysicalDeviceFeatures2KHR)found;
    return (PFN_vkVoidFunction)without_half;
}

static void without_half(VkPhysicalDevice device, VkPhysicalDeviceFeatures2 *features)
{
    with_half(device, features);
    for (VkBaseOutStructure *next = features->pNext; next; next = next->pNext)
        if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES)
            ((VkPhysicalDeviceShaderFloat16Int8Features *)next)->shaderFloat16 =
                VK_FALSE;
}

/* A device that is lost works no more. The one here does: so the wait is a real one, even
 * where it is to fail, or what it works on would be freed under it. Of one that never
 * answers, a wait without an end does not return. */
VKAPI_ATTR VkResult VKAPI_CALL
vkWaitForFences(VkDevice device, uint32_t number, const VkFence *fences, VkBool32 all,
                uint64_t timeout)
{
    static atomic_int count;
    VkResult result;
    const int fails = fault(__func__, &count, &result);
    if (fails && result == VK_TIMEOUT && timeout == UINT64_MAX)
        for (;;)
            pause();
    const VkResult waited = ((PFN_vkWaitForFences)real(__func__))(
        device, number, fences, all, fails ? UINT64_MAX : timeout);
    return fails ? result : waited;
}
