#include "harness/version.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* The next number of *s, which moves behind it and its dot; 0 at the end. */
static unsigned long next_number(const char **s)
{
    char *end;

    if (!isdigit((unsigned char)**s))
        return 0;
    const unsigned long n = strtoul(*s, &end, 10);
    *s = end + (*end == '.' && isdigit((unsigned char)end[1]));
    return n;
}

static bool is_early(const char *rest)
{
    rest += *rest == '.' || *rest == '-';
    return isalpha((unsigned char)*rest) && strncmp(rest, "post", 4) != 0;
}

int mp_version_compare(const char *a, const char *b)
{
    while (isdigit((unsigned char)*a) || isdigit((unsigned char)*b)) {
        const unsigned long x = next_number(&a), y = next_number(&b);
        if (x != y)
            return x < y ? -1 : 1;
    }
    return (int)is_early(b) - (int)is_early(a);
}

typedef struct condition {
    const char *op, *version; /* op "": any version */
    size_t name, op_length;
} condition;

static condition split(const char *text)
{
    condition c = {.name = strcspn(text, " <>=")};

    c.op = text + c.name + strspn(text + c.name, " ");
    c.op_length = strspn(c.op, "<>=");
    c.version = c.op + c.op_length + strspn(c.op + c.op_length, " ");
    return c;
}

static bool known(const condition *c)
{
    static const char *const ops[] = {"<", "<=", ">", ">=", "=="};

    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (c->op_length == strlen(ops[i]) && !strncmp(c->op, ops[i], c->op_length))
            return true;
    return false;
}

bool mp_engine_condition_valid(const char *text)
{
    const condition c = split(text);

    if (!c.name || strspn(text, " ") > 0)
        return false;
    return c.op_length ? known(&c) && isdigit((unsigned char)*c.version) &&
                             c.version[strcspn(c.version, " ")] == '\0'
                       : *c.op == '\0';
}

bool mp_engine_condition_holds(const char *text, const char *name, const char *version)
{
    const condition c = split(text);

    if (strlen(name) != c.name || strncmp(text, name, c.name) != 0)
        return false;
    if (!c.op_length)
        return true;
    if (!isdigit((unsigned char)*version))
        return false; /* not known: neither before nor after another */
    const int order = mp_version_compare(version, c.version);
    const bool equal = c.op[c.op_length - 1] == '=';
    if (order == 0)
        return equal;
    return c.op[0] == (order < 0 ? '<' : '>');
}
