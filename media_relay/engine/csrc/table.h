/* A hash table of things that carry their own link; whoever looks up compares. It only grows. */
#ifndef DIALCAST_TABLE_H
#define DIALCAST_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct link {
    struct link *next;
    uint64_t hash;
};

struct table {
    struct link **buckets;
    size_t size, count;
};

static inline uint64_t table_mix(uint64_t value)
{
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

static inline struct link *table_first(const struct table *table, uint64_t hash)
{
    return table->size ? table->buckets[hash & (table->size - 1)] : NULL;
}

static inline bool table_add(struct table *table, struct link *link, uint64_t hash)
{
    if (table->count >= table->size) {
        size_t size = table->size ? 2 * table->size : 64;
        struct link **buckets = calloc(size, sizeof *buckets);
        if (buckets == NULL && table->size == 0)
            return false;
        if (buckets != NULL) {
            for (size_t i = 0; i < table->size; i++)
                for (struct link *each = table->buckets[i], *next; each != NULL; each = next) {
                    next = each->next;
                    each->next = buckets[each->hash & (size - 1)];
                    buckets[each->hash & (size - 1)] = each;
                }
            free(table->buckets);
            table->buckets = buckets;
            table->size = size;
        }
    }
    link->hash = hash;
    link->next = table->buckets[hash & (table->size - 1)];
    table->buckets[hash & (table->size - 1)] = link;
    table->count++;
    return true;
}

static inline void table_remove(struct table *table, struct link *link)
{
    if (table->size == 0)
        return;
    for (struct link **at = &table->buckets[link->hash & (table->size - 1)]; *at != NULL; at = &(*at)->next)
        if (*at == link) {
            *at = link->next;
            table->count--;
            return;
        }
}

#endif
