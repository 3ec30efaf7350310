// Makes one compute pipeline on the first Vulkan device and prints its assembly.
//
// usage: compile_pipeline SPV [ID=VALUE ...]
//
// The shader's buffers are storage buffers in set 0, at most BINDINGS of them; its push
// constants have at most 128 bytes. ID=VALUE sets a specialization constant to 32 bits.
// What the driver itself prints while it compiles goes where it pleases.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

#define BINDINGS 8
#define CONSTANTS 32

static void check(VkResult result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "compile_pipeline: %s failed (%d)\n", what, result);
        exit(1);
    }
}

static uint32_t *read_words(const char *name, size_t *size)
{
    FILE *file = fopen(name, "rb");
    uint32_t *words = NULL;
    *size = 0;
    if (file && !fseek(file, 0, SEEK_END)) {
        long length = ftell(file);
        rewind(file);
        if (length > 20 && length % 4 == 0 && (words = malloc(length)))
            *size = fread(words, 1, length, file);
        if (*size != (size_t)length || words[0] != 0x07230203)
            *size = 0;
    }
    if (!*size) {
        fprintf(stderr, "compile_pipeline: %s is no SPIR-V file\n", name);
        exit(1);
    }
    fclose(file);
    return words;
}

static VkDevice make_device(void)
{
    VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_1};
    VkInstanceCreateInfo instance_info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pApplicationInfo = &application};
    VkInstance instance;
    check(vkCreateInstance(&instance_info, NULL, &instance), "vkCreateInstance");

    uint32_t count = 1;
    VkPhysicalDevice physical;
    check(vkEnumeratePhysicalDevices(instance, &count, &physical), "listing devices");
    if (!count) {
        fprintf(stderr, "compile_pipeline: there is no device\n");
        exit(1);
    }
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueCount = 1,
        .pQueuePriorities = &priority};
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR feature = {
        .sType =
            VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
        .pipelineExecutableInfo = VK_TRUE};
    const char *extension = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
    VkDeviceCreateInfo device_info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &feature,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = 1,
        .ppEnabledExtensionNames = &extension};
    VkDevice device;
    check(vkCreateDevice(physical, &device_info, NULL, &device), "vkCreateDevice");
    return device;
}

static VkPipelineLayout make_layout(VkDevice device)
{
    VkDescriptorSetLayoutBinding bindings[BINDINGS];
    for (uint32_t i = 0; i < BINDINGS; i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){
            .binding = i,
            .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .descriptorCount = 1,
            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
    VkDescriptorSetLayoutCreateInfo set_info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = BINDINGS,
        .pBindings = bindings};
    VkDescriptorSetLayout set;
    check(vkCreateDescriptorSetLayout(device, &set_info, NULL, &set), "the set's layout");
    VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, 128};
    VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &set,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &push};
    VkPipelineLayout layout;
    check(vkCreatePipelineLayout(device, &info, NULL, &layout), "the layout");
    return layout;
}

static void print_assembly(VkDevice device, VkPipeline pipeline)
{
    PFN_vkGetPipelineExecutableInternalRepresentationsKHR get =
        (PFN_vkGetPipelineExecutableInternalRepresentationsKHR)vkGetDeviceProcAddr(
            device, "vkGetPipelineExecutableInternalRepresentationsKHR");
    VkPipelineExecutableInfoKHR which = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, .pipeline = pipeline};
    VkPipelineExecutableInternalRepresentationKHR texts[16] = {0};
    uint32_t count = 16;
    for (uint32_t i = 0; i < count; i++)
        texts[i].sType =
            VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR;
    // Once for the sizes, and again for the texts.
    check(get(device, &which, &count, texts), "asking for the assembly");
    for (uint32_t i = 0; i < count; i++)
        texts[i].pData = calloc(1, texts[i].dataSize + 1);
    check(get(device, &which, &count, texts), "asking for the assembly");
    for (uint32_t i = 0; i < count; i++)
        if (texts[i].isText && !strcmp(texts[i].name, "Assembly"))
            puts(texts[i].pData);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 2 + CONSTANTS) {
        fprintf(stderr, "usage: compile_pipeline SPV [ID=VALUE ...]\n");
        return 2;
    }
    VkSpecializationMapEntry entries[CONSTANTS];
    uint32_t values[CONSTANTS], constants = argc - 2;
    for (uint32_t i = 0; i < constants; i++) {
        char *value = strchr(argv[2 + i], '=');
        if (!value) {
            fprintf(stderr, "compile_pipeline: %s is not ID=VALUE\n", argv[2 + i]);
            return 2;
        }
        entries[i] = (VkSpecializationMapEntry){strtoul(argv[2 + i], NULL, 0), 4 * i, 4};
        values[i] = strtoul(value + 1, NULL, 0);
    }
    VkSpecializationInfo specialization = {constants, entries, 4 * constants, values};

    size_t size;
    uint32_t *words = read_words(argv[1], &size);
    VkDevice device = make_device();
    VkShaderModuleCreateInfo module_info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = size,
        .pCode = words};
    VkShaderModule module;
    check(vkCreateShaderModule(device, &module_info, NULL, &module), "the shader module");
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR
            | VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR,
        .layout = make_layout(device),
        .stage = {
            .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
            .stage = VK_SHADER_STAGE_COMPUTE_BIT,
            .module = module,
            .pName = "main",
            .pSpecializationInfo = &specialization}};
    VkPipeline pipeline;
    check(vkCreateComputePipelines(device, VK_NULL_HANDLE, 1, &info, NULL, &pipeline),
        "the pipeline");
    print_assembly(device, pipeline);
    return 0;
}
