/* Runs a harness over files, where there is no libFuzzer: what was found once is tried again by the ordinary tests. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) int LLVMFuzzerInitialize(int *count, char ***values);

static int replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        return 1;
    }
    size_t size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(size + !size); /* exactly as long: a byte read behind it is noticed */
    size_t got = data != NULL ? fread(data, 1, size, file) : 0;
    fclose(file);
    if (data != NULL && got == size)
        LLVMFuzzerTestOneInput(data, size);
    free(data);
    return got != size;
}

int main(int count, char **values)
{
    if (LLVMFuzzerInitialize != NULL)
        LLVMFuzzerInitialize(&count, &values);
    int wrong = 0;
    for (int i = 1; i < count; i++)
        wrong |= replay(values[i]);
    return wrong;
}
